"""Read files into records, targets and splits."""
