"""One engine for each way to run a language model."""
