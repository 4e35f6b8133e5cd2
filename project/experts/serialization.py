"""Table -> text: one sentence a cell, which is the serialisation that the paper names, or Markdown, or JSON."""

import json
import re

from ..config.schema import ExpertsConfig

_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""All that ends a line."""


def describe_table(table: dict[str, object], config: ExpertsConfig) -> str:
    """The cells in the row's own order; one that is None is left out or said to be unknown.

    Markdown and JSON hold one cell a line. Without a cell to tell, the text is empty.
    """
    cells = {name: value for name, value in table.items() if value is not None or config.missing_cells == "say"}
    if not cells:
        return ""
    if config.table == "sentences":
        return " ".join(f"The {name} is {'not known' if value is None else value}." for name, value in cells.items())
    if config.table == "markdown":
        rows = [
            ("column", "value"),
            ("---", "---"),
            *((name, "unknown" if value is None else value) for name, value in cells.items()),
        ]
        return "\n".join(f"| {_escaped(name)} | {_escaped(value)} |" for name, value in rows)
    lines = [
        f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in cells.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _escaped(value: object) -> str:
    """The value in a cell of a Markdown table: on one line, its pipes and backslashes escaped."""
    return _BREAK.sub("<br>", re.sub(r"([\\|])", r"\\\1", str(value)))


def describe_text(text: str, config: ExpertsConfig) -> str:
    """The words of the text, one blank between them."""
    return " ".join(text.split())
