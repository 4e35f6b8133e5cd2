"""Write the data card: plain facts on the selected rows in Markdown, without contents except the names of classes."""

import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..config.schema import PARTS, DataConfig
from .near_duplicates import Copies
from .record import MODALITIES, Record
from .rows import Rows
from .splits import SPLITS

MAX_LISTED_CLASSES = 50
"""Number of classes that the card lists; further classes are only counted."""
_QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Facts:
    """A small table: its title, its column names and its lines."""

    title: str
    header: tuple[str, ...]
    lines: list[tuple[str, ...]]


def facts(rows: Rows) -> list[Facts]:
    """Return tables of rows and groups, missing modalities, the target, and the words of the texts, by split."""
    return [
        Facts(
            "Rows",
            ("split", "rows", "groups"),
            _by_split(rows, lambda split: (f"{len(split):,}", f"{len({record.group for record in split}):,}")),
        ),
        Facts(
            "Missing modalities, share of the rows",
            ("split", *MODALITIES),
            _by_split(
                rows,
                lambda split: tuple(
                    _share(sum(name not in record.present for record in split), len(split)) for name in MODALITIES
                ),
            ),
        ),
        _numbers(rows) if rows.target.kind == "number" else _classes(rows),
        Facts("Words per text", ("split", "median", "95 %"), _by_split(rows, _words)),
    ]


def dataset_card(rows: Rows, config: DataConfig, copies: Copies) -> str:
    """Return the card in Markdown. It names the file without its folder, and gives its SHA-256 digest."""
    module = PARTS["data"][config.kind].module
    split = config.split
    caps = [f"at most {cap:,} {name} rows" for name in SPLITS if (cap := getattr(split, f"max_{name}")) is not None]
    caps += [] if config.limit is None else [f"about {config.limit:,} rows in all"]
    selection = f" Selected: {', '.join(caps)}, the first in the order of a hash of the row's id." if caps else ""
    kind = {"class": "a class", "ordinal": "an ordinal class", "number": "a number"}[rows.target.kind]
    city = getattr(config, "test_city", None)
    shares = f"val {split.val:g}, test {split.test:g} of the groups, train the rest"
    if city is not None:
        shares = f"val {split.val:g} of the groups, train the rest; test is the listings of {city}"
    lines = [f"# {getattr(module, 'TITLE', config.name)}", ""]
    lines += [
        f"- {name}: {value}"
        for name, value in (
            ("Source", getattr(module, "SOURCE", None)),
            ("Terms", getattr(module, "TERMS", None)),
            ("File", _file(config)),
        )
        if value
    ]
    lines += [
        f"- Target: {kind}{', learned as its logarithm' if rows.target.log else ''}. {config.question}",
        f"- Modalities: {', '.join(rows.modalities) or 'none'}",
        f"- Split: by a hash of the row's group and the seed {split.seed}; {shares}; "
        f"no group is in two splits.{selection}",
        f"- Near-copies: {copies}. Images are not compared.",
    ]
    for table in facts(rows):
        lines += ["", f"## {table.title}", "", table_line(table.header), table_line(["---"] * len(table.header))]
        lines += [table_line(line) for line in table.lines]
    return "\n".join(lines) + "\n"


def _file(config: DataConfig) -> str | None:
    """Return name and SHA-256 digest of the file that the rows come from; None if it is not a single file."""
    path = Path(getattr(config, "path", None) or ".").expanduser()
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return f"{path.name}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def table_line(cells: Sequence[str]) -> str:
    """Return a line of a Markdown table, with pipes, line breaks and HTML in the cells escaped."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _by_split(rows: Rows, summarize: Callable[[list[Record]], tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(name, *summarize(getattr(rows, name))) for name in SPLITS]


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _classes(rows: Rows) -> Facts:
    """Return the count and share of each class in each split."""
    counts = {name: Counter(record.target for record in getattr(rows, name)) for name in SPLITS}
    untrained = {target for count in counts.values() for target in count if target is not None}
    untrained -= set(rows.target.classes)
    classes = [*rows.target.classes, *sorted(untrained)]
    if len(classes) > MAX_LISTED_CLASSES:
        classes.sort(key=lambda target: -counts["train"][target])
    lines = [
        (
            target,
            *(f"{counts[name][target]:,} ({_share(counts[name][target], counts[name].total())})" for name in SPLITS),
        )
        for target in classes[:MAX_LISTED_CLASSES]
    ]
    if unlisted := classes[MAX_LISTED_CLASSES:]:
        lines.append(
            (
                f"and {len(unlisted)} more classes",
                *(f"{sum(counts[name][target] for target in unlisted):,}" for name in SPLITS),
            )
        )
    return Facts("Classes", ("class", *SPLITS), lines)


def _numbers(rows: Rows) -> Facts:
    """Return the quantiles of the target in each split, in its own unit."""

    def quantiles(split: list[Record]) -> tuple[str, ...]:
        values = [record.target for record in split if record.target is not None]
        return tuple(map(_short, np.quantile(values, _QUANTILES))) if values else ("-",) * len(_QUANTILES)

    names = ("minimum", *(f"{share:.0%}" for share in _QUANTILES[1:-1]), "maximum")
    return Facts("Quantiles of the target", ("split", *names), _by_split(rows, quantiles))


def _short(value: float) -> str:
    """Return a number with four significant digits, or all digits before the point if there are more."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _words(split: list[Record]) -> tuple[str, ...]:
    """Return the median and the 95 % quantile of the number of words per text."""
    counts = [len(record.text.split()) for record in split if "text" in record.present]
    return tuple(f"{value:.0f}" for value in np.quantile(counts, (0.5, 0.95))) if counts else ("-", "-")
