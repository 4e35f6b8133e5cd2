"""Records, targets, splits and tables: from files to rows."""
