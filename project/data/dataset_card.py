"""The data card of a selection of rows: plain facts in Markdown, and no content of a row but the names of classes."""

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

SHOWN = 50
"""How many classes are listed at most."""
QUANTILES = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)


@dataclass(frozen=True)
class Facts:
    """A small table: what it tells, the names of its columns, and its lines."""

    title: str
    header: tuple[str, ...]
    lines: list[tuple[str, ...]]


def facts(rows: Rows) -> list[Facts]:
    """Rows and groups, missing modalities, the target and the words of the texts, all by split."""
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
        Facts("Words of the text, where there is one", ("split", "median", "95 %"), _by_split(rows, _words)),
    ]


def dataset_card(rows: Rows, config: DataConfig, copies: Copies) -> str:
    """The card in Markdown. A file is named without its folder, and told by its digest."""
    module = PARTS["data"][config.kind].module
    split = config.split
    caps = [f"at most {cap:,} {name} rows" for name in SPLITS if (cap := getattr(split, f"max_{name}")) is not None]
    caps += [] if config.limit is None else [f"about {config.limit:,} rows in all"]
    kept = f" Kept are {', '.join(caps)}, the first in an order drawn by a hash of the row's id." if caps else ""
    kind = {"class": "a class", "ordinal": "a class among ordered ones", "number": "a number"}[rows.target.kind]
    city = getattr(config, "test_city", None)
    shares = f"val {split.val:g}, test {split.test:g} of the groups, train the rest"
    if city is not None:
        shares = f"val {split.val:g} of the groups, train the rest; test are the listings of {city}"
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
        f"- Target: {kind}{', learned in its logarithm' if rows.target.log else ''}. {config.question}",
        f"- Modalities: {', '.join(rows.modalities) or 'none'}",
        f"- Split: by a hash of the row's group and the seed {split.seed}; {shares}; no group is in two splits.{kept}",
        f"- Near-copies: {copies}. Images are not compared.",
    ]
    for table in facts(rows):
        lines += ["", f"## {table.title}", "", table_line(table.header), table_line(["---"] * len(table.header))]
        lines += [table_line(line) for line in table.lines]
    return "\n".join(lines) + "\n"


def _file(config: DataConfig) -> str | None:
    """Name and sha256 of the one file that the rows come from, or None where there is no such file."""
    path = Path(getattr(config, "path", None) or ".").expanduser()
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return f"{path.name}, sha256 {hashlib.file_digest(file, 'sha256').hexdigest()}"


def table_line(cells: Sequence[str]) -> str:
    """A line of a Markdown table; what is in a cell cannot end it, nor is it HTML."""
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def _by_split(rows: Rows, told: Callable[[list[Record]], tuple[str, ...]]) -> list[tuple[str, ...]]:
    return [(name, *told(getattr(rows, name))) for name in SPLITS]


def _share(count: int, total: int) -> str:
    return f"{count / total:.1%}" if total else "-"


def _classes(rows: Rows) -> Facts:
    """How often each class of the target is in each split."""
    counts = {name: Counter(record.target for record in getattr(rows, name)) for name in SPLITS}
    others = {target for count in counts.values() for target in count if target is not None} - set(rows.target.classes)
    listed = [*rows.target.classes, *sorted(others)]
    if len(listed) > SHOWN:
        listed.sort(key=lambda target: -counts["train"][target])
    lines = [
        (
            target,
            *(f"{counts[name][target]:,} ({_share(counts[name][target], counts[name].total())})" for name in SPLITS),
        )
        for target in listed[:SHOWN]
    ]
    if len(listed) > SHOWN:
        lines.append(
            (
                f"and {len(listed) - SHOWN} more classes",
                *(f"{sum(counts[name][target] for target in listed[SHOWN:]):,}" for name in SPLITS),
            )
        )
    return Facts("Classes", ("class", *SPLITS), lines)


def _numbers(rows: Rows) -> Facts:
    """Quantiles of the target in each split, in its own unit."""

    def told(split: list[Record]) -> tuple[str, ...]:
        values = [record.target for record in split if record.target is not None]
        return tuple(map(_short, np.quantile(values, QUANTILES))) if values else ("-",) * len(QUANTILES)

    names = ("least", *(f"{share:.0%}" for share in QUANTILES[1:-1]), "most")
    return Facts("Quantiles of the target", ("split", *names), _by_split(rows, told))


def _short(value: float) -> str:
    """A number in four digits, or whole where it has more before its point."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.4g}"


def _words(split: list[Record]) -> tuple[str, ...]:
    """Median and 95 % quantile of the words of a text."""
    counts = [len(record.text.split()) for record in split if "text" in record.present]
    return tuple(f"{value:.0f}" for value in np.quantile(counts, (0.5, 0.95))) if counts else ("-", "-")
