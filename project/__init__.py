"""Text-centric multimodal alignment that survives bad inputs: after arXiv 2408.09798, and beyond."""

__version__ = "0.1.0"
__all__ = ["__version__", "load_config", "load_run"]


def __getattr__(name: str):
    """Import load_run and load_config on first use, since they import torch and omegaconf."""
    if name == "load_run":
        from .inference.trained_run import load_run

        return load_run
    if name == "load_config":
        from .config.compose import load_config

        return load_config
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *(name for name in __all__ if name not in globals())])
