"""The methods that are compared: the text-centric transformer and its rivals."""
