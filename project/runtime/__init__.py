"""Stop signals, atomic writes and progress bars."""
