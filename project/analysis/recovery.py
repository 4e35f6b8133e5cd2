"""Measure what the language model recovers: the removed cells and words that the aligned text contains.

A removed cell or word has one of four outcomes in the aligned text:

    copied    present, and also in the description of another modality after the corruption
    outside   present, and in no description after the corruption: knowledge, inference or chance
    wrong     absent, and another value of its column is present that no description of the record has (cells only)
    lost      absent otherwise
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import numpy as np
import pandas as pd

from ..data.record import Cell
from ..evaluation.results import BOOTSTRAP_SEED
from ..llm.quality_gate import content_words
from ..metrics.bootstrap import estimate_with_interval, group_weights

RECOVERY_COLUMNS = ["condition", "modality", "measure", "count", "n", "value", "low", "high"]
OUTCOMES = ("copied", "outside", "wrong", "lost")

Tokens = tuple[str, ...]


def tokens(text: object) -> Tokens:
    """Return words and numbers in order, case-folded; equal numbers give equal tokens: 1,200.0 is 1200."""
    return tuple(map(_token, re.findall(r"(?:(?<!\w)[-−])?\d+(?:[.,]\d+)*|[^\W\d_]+", str(text))))


def _token(word: str) -> str:
    number = word.replace("−", "-")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", number):
        number = number.replace(",", "")
    # The format f writes no exponent, so 100 stays 100 after normalize.
    return f"{Decimal(number).normalize():f}" if re.fullmatch(r"-?\d+(\.\d+)?", number) else word.casefold()


def content_tokens(all_tokens: Iterable[str]) -> set[str]:
    """Return the tokens that carry facts: no function words, no single letters."""
    return {token for token in all_tokens if content_words(token)}


def is_stated(value: Tokens, text: Tokens) -> bool:
    """Return True if the text contains the tokens of the value, contiguous and in order."""
    if len(value) == 1:
        return value[0] in text
    return bool(value) and any(text[start : start + len(value)] == value for start in range(len(text) - len(value) + 1))


def recovery_outcome(value: Tokens, aligned: Tokens, others: Sequence[Tokens], rivals: Iterable[Tokens] = ()) -> str:
    """Return one of OUTCOMES for a removed value.

    `others` are the descriptions of the other modalities after the corruption, `rivals` other values of the column
    that no description of the record has.
    """
    if is_stated(value, aligned):
        return "copied" if any(is_stated(value, other) for other in others) else "outside"
    return "wrong" if any(is_stated(rival, aligned) for rival in rivals) else "lost"


def removed_words(before: Tokens, after: Tokens) -> list[Tokens]:
    """Return the content words of a description that are missing after the corruption, unique and sorted."""
    return [(word,) for word in sorted(content_tokens(before) - set(after))]


def removed_cells(
    cells: Mapping[str, Cell], corrupted: Mapping[str, Cell], before: Tokens, after: Tokens
) -> tuple[dict[str, Tokens], int]:
    """Return the traceable removed cells, column -> value, and the number of untraceable ones.

    A cell is removed if the description `before` states it and the corruption deleted or changed its value. It is
    untraceable if it has only function words, such as yes or no, or if the description `after` still states its value,
    as that of another column.
    """
    changed = {
        column: tokens(value)
        for column, value in cells.items()
        if value is not None and (corrupted.get(column) is None or tokens(corrupted[column]) != tokens(value))
    }
    removed = {column: value for column, value in changed.items() if is_stated(value, before)}
    traceable = {
        column: value for column, value in removed.items() if content_tokens(value) and not is_stated(value, after)
    }
    return traceable, len(removed) - len(traceable)


class Vocabulary:
    """The values of each column in the training rows."""

    def __init__(self, tables: Iterable[Mapping[str, Cell]]):
        counts: dict[str, Counter] = {}
        for table in tables:
            for column, value in table.items():
                if value is not None and content_tokens(tokens(value)):
                    counts.setdefault(column, Counter())[tokens(value)] += 1
        self.most_frequent = {
            column: min(counter, key=lambda value: (-counter[value], value)) for column, counter in counts.items()
        }
        """The most frequent value of each column; of equally frequent ones the first in order."""
        self._values = {column: set(counter) for column, counter in counts.items()}

    def rivals(self, column: str, aligned: Tokens, descriptions: Sequence[Tokens]) -> list[Tokens]:
        """Return the values of the column that the aligned text states and none of the descriptions does, sorted."""
        values = self._values.get(column, set())
        candidates = {
            aligned[start : start + size]
            for size in {len(value) for value in values}
            for start in range(len(aligned) - size + 1)
        } & values
        return sorted(value for value in candidates if not any(is_stated(value, text) for text in descriptions))


def recovery_table(texts: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Return counts and shares of removed cells and words, in the columns `RECOVERY_COLUMNS`.

    From texts.parquet, by condition and corrupted modality: the four outcomes; `right` = copied + outside; and `guess`,
    the share that a guess recovers: the most frequent training value for a cell, the aligned text of the next record of
    another group for a word. The shares have intervals over groups. `untraceable` is a count of removed cells without a
    share.
    """
    texts = texts.assign(table=texts["table"].fillna("{}"))
    test = texts[texts["split"] == "test"].sort_values("record")
    training = texts[(texts["split"] == "train") & texts["round"].isna()]
    vocabulary = Vocabulary(map(json.loads, training["table"]))
    clean = {row.record: row for row in test[test["condition"] == "clean"].itertuples()}
    table = []
    for condition, rows in test[test["condition"] != "clean"].groupby("condition", sort=False):
        items, untraceable = _items(list(rows.itertuples()), clean, vocabulary)
        for modality, part in items.groupby("modality", sort=False):
            weights = group_weights(part["group"], resamples, BOOTSTRAP_SEED)
            outcomes = {
                name: (part["outcome"] == name).to_numpy()
                for name in OUTCOMES
                if name != "wrong" or modality == "table"
            }
            measures = {
                "right": outcomes["copied"] | outcomes["outside"],
                **outcomes,
                "guess": part["guess"].to_numpy(),
            }
            table += [
                (condition, modality, name, int(values.sum()), len(part), *estimate_with_interval(values, weights))
                for name, values in measures.items()
            ]
        if untraceable:
            table.append((condition, "table", "untraceable", untraceable, untraceable, np.nan, np.nan, np.nan))
    return pd.DataFrame(table, columns=RECOVERY_COLUMNS)


def _items(rows: list, clean: dict, vocabulary: Vocabulary) -> tuple[pd.DataFrame, int]:
    """Return one row per cell and word that one condition removed, and the number of untraceable cells."""
    items, untraceable = [], 0
    aligned = [tokens(" ".join(json.loads(row.aligned).values())) for row in rows]
    for index, row in enumerate(rows):
        versions = (clean[row.record], row)
        before, after = (
            {name: tokens(text) for name, text in json.loads(version.described).items()} for version in versions
        )
        next_of_another_group = next(
            (
                aligned[(index + step) % len(rows)]
                for step in range(1, len(rows))
                if rows[(index + step) % len(rows)].group != row.group
            ),
            (),
        )
        descriptions = [*before.values(), *after.values()]
        for modality, description in before.items():
            corrupted = after.get(modality, ())
            others = [text for name, text in after.items() if name != modality]
            if modality == "table":
                tables = [json.loads(version.table) for version in versions]
                cells, count = removed_cells(*tables, description, corrupted)
                untraceable += count
                for column, value in cells.items():
                    rivals = vocabulary.rivals(column, aligned[index], descriptions)
                    outcome = recovery_outcome(value, aligned[index], others, rivals)
                    items.append((row.group, modality, outcome, vocabulary.most_frequent.get(column) == value))
            else:
                for word in removed_words(description, corrupted):
                    outcome = recovery_outcome(word, aligned[index], others)
                    items.append((row.group, modality, outcome, is_stated(word, next_of_another_group)))
    return pd.DataFrame(items, columns=["group", "modality", "outcome", "guess"]), untraceable
