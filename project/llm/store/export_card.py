"""Export a store for publication: one Parquet file and its data card."""

import hashlib
import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from ...runtime.atomic_io import atomic_directory
from .maintenance import stats, write_single_file
from .store import Row

_FILE = "generations.parquet"


def export(folder: Path, output: Path) -> int:
    """Write the generations of a store and their card into a new folder, atomically; return the number of rows.

    Raises UserError if `output` exists and is not empty.
    """
    with atomic_directory(output) as part:
        table = write_single_file(folder, part / _FILE)
        digest = hashlib.sha256((part / _FILE).read_bytes()).hexdigest()
        rows = [Row(**row) for row in table.to_pylist()]
        (part / "README.md").write_text(generations_card(rows, digest), encoding="utf-8")
    return len(rows)


def generations_card(rows: list[Row], digest: str) -> str:
    """Return the data card in Markdown, with the metadata header of the Hugging Face hub."""
    dates = sorted(datetime.fromtimestamp(row.created, UTC).date().isoformat() for row in rows) or ["-"]
    flags = Counter(flag for row in rows for flag in row.flags.split(",") if flag)
    instructions = Counter((row.stage, _instruction(row)) for row in rows)
    sections = [
        f"### {stage}, {count} rows\n\n```\n{text}\n```" for (stage, text), count in sorted(instructions.items())
    ]
    return "\n".join(
        [
            "---",
            "license: other",
            "pretty_name: Generations of a text-centric alignment",
            "---",
            "",
            "# Generations",
            "",
            f"{len(rows)} generations of {', '.join(sorted({row.model for row in rows})) or 'no model'}, made from "
            f"{dates[0]} to {dates[-1]}, one row each in `{_FILE}` (sha256 `{digest}`).",
            "",
            "A row holds key, stage, prompt (messages and sampling settings as JSON), completion, finish (`length` if "
            "the token limit cut it off), tokens, seconds, model, flags, created and writer. The key is the sha256 of "
            "model, messages, sampling settings, answer schema, round and attempt. To use it in a run, give "
            "`store.recorded=` this folder.",
            "",
            "## Counts",
            "",
            _table(stats(iter(rows))),
            "",
            "Flags: " + (", ".join(f"{name} {count}" for name, count in sorted(flags.items())) or "none stored") + ".",
            "",
            "## Instructions",
            "",
            *sections,
            "",
            "## Licence",
            "",
            "To be filled in: the texts derive from the source data and from the model, under the terms of both.",
            "",
        ]
    )


def _instruction(row: Row) -> str:
    """Return the system message of a request."""
    return next((content for role, content in json.loads(row.prompt)["messages"] if role == "system"), "(none)")


def _table(frame: pd.DataFrame) -> str:
    """Return a frame as a Markdown table."""
    lines = [list(frame.columns), ["---"] * len(frame.columns), *frame.round(2).astype(str).to_numpy().tolist()]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
