"""Runs, prepared stores, studies and sweeps."""
