"""Measurements on the texts of finished runs."""
