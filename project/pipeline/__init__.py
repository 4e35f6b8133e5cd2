"""Steps from a record to the text that the model reads: corrupt, describe, align, perturb, compose."""
