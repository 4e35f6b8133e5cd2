"""One reader for each data set: from its files to records."""
