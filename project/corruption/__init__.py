"""Corruptions of raw modalities and the test conditions that combine them."""
