"""One reader per data set: from files to records."""
