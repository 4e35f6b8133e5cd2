"""Scores, drop ratios and bootstrap intervals."""
