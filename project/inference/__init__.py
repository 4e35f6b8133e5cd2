"""A trained run applied to new rows, and its export."""
