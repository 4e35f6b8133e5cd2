"""The store of generations: journals, Parquet shards, maintenance and export."""
