"""Experts that turn one modality into text."""
