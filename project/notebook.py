"""Functions of the notebooks: open finished runs, measure their texts, and show records with marked changes."""

import os
import random
from html import escape
from pathlib import Path

import pandas as pd

from .analysis.analyse import analyse
from .config.compose import load_config
from .errors import UserError
from .evaluation.comparison import Comparison, Estimate
from .evaluation.run_loading import load_runs, run_folders
from .pipeline.text_log import TEXTS_FILE
from .report.page import compare_all

ROOT = Path(__file__).parents[1]
MARKS = {"equal": "{}", "delete": "<del style='opacity:.6'>{}</del>", "insert": "<ins><b>{}</b></ins>"}
CELL = "text-align:left;vertical-align:top;max-width:24em;white-space:normal"
RESAMPLES = 2000
"""Bootstrap resamples of each interval."""


def open_runs(pattern: str | None = None) -> Comparison:
    """Return the comparison of the finished runs that a glob matches, by default TCR_RUNS, else the demo's.

    Raises UserError if there are none, or if they are on several data sets.
    """
    pattern = pattern or os.environ.get("TCR_RUNS") or str(ROOT / "outputs" / "demo" / "*" / "seed-*")
    try:
        folders = run_folders([pattern])
    except UserError as error:
        raise UserError(f"{pattern}: no finished run; run `make demo`, or set TCR_RUNS to a glob of others") from error
    comparison, *others = compare_all(load_runs(folders), RESAMPLES)
    if others:
        raise UserError(
            f"{pattern}: runs on {comparison.data} and {others[0].data}; give a glob of runs on one data set"
        )
    return comparison


def measure_texts(comparison: Comparison) -> None:
    """Measure the texts of the first run of each method, as the verb `analyse` does, if they are not measured yet."""
    first = [runs[0].folder for runs in comparison.runs.values()]
    new = [
        str(folder)
        for folder in first
        if (folder / TEXTS_FILE).is_file() and not _newer(folder / "collapse.parquet", folder / TEXTS_FILE)
    ]
    if new:
        analyse(load_config(["experiment=demo"]), new)  # the demo configures how texts are embedded


def _newer(path: Path, than: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= than.stat().st_mtime


def measured(comparison: Comparison, table: str) -> pd.DataFrame:
    """Return a table of `analyse`, from the first run of each method that has it. Raises UserError if none has it."""
    tables = {}
    for method in comparison.methods:
        paths = [path for run in comparison.runs[method] if (path := run.folder / f"{table}.parquet").is_file()]
        if paths:
            tables[method] = pd.read_parquet(paths[0])
    if not tables:
        folder = next(iter(comparison.runs.values()))[0].folder.parents[1]
        raise UserError(f"no run in {folder} has {table}.parquet; write it with python -m project analyse")
    return pd.concat(tables, names=["method"]).reset_index("method")


def estimates(table: pd.DataFrame, *by: str) -> dict[str, Estimate]:
    """Return the rows of a table with value, low and high as estimates, by the values of the columns `by`."""
    return {
        ", ".join(str(row[name]) for name in by): Estimate(row["value"], row["low"], row["high"])
        for row in table.to_dict("records")
    }


def example_table(folder: Path, rows: int = 240) -> Path:
    """Write a CSV of generated adverts in three categories, with missing cells; equal on every machine."""
    things = {
        "tools": ("hammer", "saw", "drill", "wrench"),
        "garden": ("spade", "rake", "hose", "seeds"),
        "kitchen": ("pan", "knife", "kettle", "bowl"),
    }
    draw, adverts = random.Random(0), []
    for index in range(rows):
        category = draw.choice(list(things))
        thing, state = draw.choice(things[category]), draw.choice(["new", "used", "old"])
        place, order = draw.choice(["home", category]), draw.choice(["hardly used", "in good order", "as seen"])
        adverts.append(
            {
                "title": f"{state} {thing}",
                "description": f"a {thing} for the {place}, {order}" if draw.random() > 0.1 else None,
                "price": draw.randint(5, 80),
                "city": draw.choice(["Bergen", "Porto", "Turin"]),
                "category": category,
                "seller": f"s{index % 60}",
            }
        )
    pd.DataFrame(adverts).to_csv(folder / "adverts.csv", index=False)
    return folder / "adverts.csv"


def cards_html(cards: list[dict]) -> str:
    """Return HTML of the cards of report.texts, with removed words struck out and added words underlined."""
    parts = []
    for card in cards:
        head = f"{card['record']}, target {card['target']}"
        head += f"; instruction: {card['instruction']}" if card.get("instruction") else ""
        columns = "".join(
            f"<td style='{CELL}'><b>{escape(name)}</b><br>{_pieces(pieces)}</td>" for name, pieces in card["columns"]
        )
        parts.append(f"<h4>{escape(head)}</h4><table><tr>{columns}</tr></table>")
    return "".join(parts)


def _pieces(pieces: list[tuple[str, list[tuple[str, str]]]]) -> str:
    paragraphs = []
    for name, runs in pieces:
        text = " ".join(MARKS[kind].format(escape(words)) for kind, words in runs)
        paragraphs.append(f"<p>{f'<i>{escape(name)}:</i> ' if name else ''}{text}</p>")
    return "".join(paragraphs)
