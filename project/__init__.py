"""Text-centric multimodal alignment that survives bad inputs: after arXiv 2408.09798, and beyond."""

__version__ = "0.1.0"
