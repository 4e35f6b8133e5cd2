"""Text -> text: it stays itself, on one line."""

from ..config.schema import ExpertsConfig


def describe_text(text: str, config: ExpertsConfig) -> str:
    """The words of the text, one blank between them."""
    return " ".join(text.split())
