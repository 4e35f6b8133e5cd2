"""Serialize a table as text: one sentence per cell, which is the serialization of the paper, or Markdown, or JSON."""

import json
import re

from ..config.schema import ExpertsConfig

_LINE_BREAK = re.compile(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]")
"""Everything that str.splitlines splits at."""


def describe_table(table: dict[str, object], config: ExpertsConfig) -> str:
    """Return the cells of a row as text, in the row's order.

    A cell that is None is skipped, or described as unknown if `config.missing_cells` is `say`. Markdown and JSON have
    one cell per line. The text is empty if no cell remains.
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
        return "\n".join(f"| {_escape(name)} | {_escape(value)} |" for name, value in rows)
    lines = [
        f"  {json.dumps(name, ensure_ascii=False)}: {json.dumps(value, ensure_ascii=False)}"
        for name, value in cells.items()
    ]
    return "{\n" + ",\n".join(lines) + "\n}"


def _escape(value: object) -> str:
    """Return the value as a cell of a Markdown table: backslashes and pipes escaped, line breaks as `<br>`."""
    return _LINE_BREAK.sub("<br>", re.sub(r"([\\|])", r"\\\1", str(value)))


def describe_text(text: str, config: ExpertsConfig) -> str:
    """Return the words of the text, separated by single spaces."""
    return " ".join(text.split())
