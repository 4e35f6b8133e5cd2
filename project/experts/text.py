"""Text -> text: it stays itself, on one line."""

from ..config.schema import Experts


def describe_text(text: str, config: Experts) -> str:
    """The words of the text, one blank between them."""
    return " ".join(text.split())
