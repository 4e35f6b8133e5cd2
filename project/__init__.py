"""Text-centric multimodal alignment that survives bad inputs: after arXiv 2408.09798, and beyond."""

__version__ = "0.1.0"


def __getattr__(name: str):
    """load_run, which brings in torch and transformers when it is asked for."""
    if name == "load_run":
        from .inference.trained_run import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
