"""What the language model gave back: of the cells and words that a corruption removed, how many the aligned text has.

A removed cell or word meets one of four fates in the aligned text:

    copied    it is there, and so it is in what was told of another modality after the corruption
    outside   it is there, though no description was left that had it: knowledge, inference or luck
    wrong     it is not there, but another value of its column is, which no description of the record has (cells only)
    lost      none of these
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

COLUMNS = ["condition", "modality", "measure", "count", "n", "value", "low", "high"]
FATES = ("copied", "outside", "wrong", "lost")

Tokens = tuple[str, ...]


def tokens(text: object) -> Tokens:
    """Words and numbers in order, without case; equal numbers are equal tokens: 1,200.0 is 1200."""
    return tuple(map(_token, re.findall(r"(?:(?<!\w)[-−])?\d+(?:[.,]\d+)*|[^\W\d_]+", str(text))))


def _token(word: str) -> str:
    number = word.replace("−", "-")
    if re.fullmatch(r"-?\d{1,3}(,\d{3})+(\.\d+)?", number):
        number = number.replace(",", "")
    # Zeros at the end of whole numbers stay: f writes no exponent.
    return f"{Decimal(number).normalize():f}" if re.fullmatch(r"-?\d+(\.\d+)?", number) else word.casefold()


def telling(found: Iterable[str]) -> set[str]:
    """The tokens that carry facts: no function words, no single letters."""
    return {token for token in found if content_words(token)}


def stated(value: Tokens, text: Tokens) -> bool:
    """Whether the value stands in the text as whole words, in its order."""
    if len(value) == 1:
        return value[0] in text
    return bool(value) and any(text[start : start + len(value)] == value for start in range(len(text) - len(value) + 1))


def fate(value: Tokens, aligned: Tokens, others: Sequence[Tokens], rivals: Iterable[Tokens] = ()) -> str:
    """One of FATES of a removed value; `others` are the other modalities' descriptions after the corruption.

    `rivals` are other values of its column that no description of the record has.
    """
    if stated(value, aligned):
        return "copied" if any(stated(value, other) for other in others) else "outside"
    return "wrong" if any(stated(rival, aligned) for rival in rivals) else "lost"


def removed_words(before: Tokens, after: Tokens) -> list[Tokens]:
    """The telling words of a description that it lacks after the corruption, each once, sorted."""
    return [(word,) for word in sorted(telling(before) - set(after))]


def removed_cells(
    cells: Mapping[str, Cell], left: Mapping[str, Cell], before: Tokens, after: Tokens
) -> tuple[dict[str, Tokens], int]:
    """The removed cells that can be traced, column -> value, and how many cannot.

    A cell is removed where the description `before` told it and its value is another, or none, after the corruption.
    It cannot be traced where it holds function words alone, such as yes or no, or where the description `after` still
    states its value, as that of another column.
    """
    gone = {
        column: tokens(value)
        for column, value in cells.items()
        if value is not None and (left.get(column) is None or tokens(left[column]) != tokens(value))
    }
    told = {column: value for column, value in gone.items() if stated(value, before)}
    traced = {column: value for column, value in told.items() if telling(value) and not stated(value, after)}
    return traced, len(told) - len(traced)


class Vocabulary:
    """The values of each column in the training rows."""

    def __init__(self, tables: Iterable[Mapping[str, Cell]]):
        counts: dict[str, Counter] = {}
        for table in tables:
            for column, value in table.items():
                if value is not None and telling(tokens(value)):
                    counts.setdefault(column, Counter())[tokens(value)] += 1
        self.guess = {
            column: min(counter, key=lambda value: (-counter[value], value)) for column, counter in counts.items()
        }
        """The most frequent value of each column, the first of equally frequent ones."""
        self._values = {column: set(counter) for column, counter in counts.items()}

    def rivals(self, column: str, aligned: Tokens, told: Sequence[Tokens]) -> list[Tokens]:
        """The column's values that the aligned text states and none of the descriptions `told` does."""
        values = self._values.get(column, set())
        found = {
            aligned[start : start + size]
            for size in {len(value) for value in values}
            for start in range(len(aligned) - size + 1)
        } & values
        return sorted(value for value in found if not any(stated(value, text) for text in told))


def recovery_table(texts: pd.DataFrame, resamples: int) -> pd.DataFrame:
    """Counts, and shares of the removed cells and words with intervals over groups, in the columns `COLUMNS`.

    From texts.parquet, by condition and corrupted modality: the four fates; `right` = copied + outside; and `guess`,
    what guessing would find: for a cell the most frequent training value, for a word the aligned text of the next
    record of another group. `untraceable` counts removed cells of which nothing can be said; it has no share.
    """
    texts = texts.assign(table=texts["table"].fillna("{}"))
    test = texts[texts["split"] == "test"].sort_values("record")
    training = texts[(texts["split"] == "train") & texts["round"].isna()]
    vocabulary = Vocabulary(map(json.loads, training["table"]))
    clean = {row.record: row for row in test[test["condition"] == "clean"].itertuples()}
    found = []
    for condition, rows in test[test["condition"] != "clean"].groupby("condition", sort=False):
        items, untraceable = _items(list(rows.itertuples()), clean, vocabulary)
        for modality, part in items.groupby("modality", sort=False):
            weights = group_weights(part["group"], resamples, BOOTSTRAP_SEED)
            fates = {
                name: (part["fate"] == name).to_numpy() for name in FATES if name != "wrong" or modality == "table"
            }
            measures = {"right": fates["copied"] | fates["outside"], **fates, "guess": part["guess"].to_numpy()}
            found += [
                (condition, modality, name, int(values.sum()), len(part), *estimate_with_interval(values, weights))
                for name, values in measures.items()
            ]
        if untraceable:
            found.append((condition, "table", "untraceable", untraceable, untraceable, np.nan, np.nan, np.nan))
    return pd.DataFrame(found, columns=COLUMNS)


def _items(rows: list, clean: dict, vocabulary: Vocabulary) -> tuple[pd.DataFrame, int]:
    """A row for each cell and word that one condition removed, and the number of cells that cannot be traced."""
    found, untraceable = [], 0
    said = [tokens(" ".join(json.loads(row.aligned).values())) for row in rows]
    for index, row in enumerate(rows):
        before, after = (
            {name: tokens(text) for name, text in json.loads(which.described).items()}
            for which in (clean[row.record], row)
        )
        next_of_another = next(
            (
                said[(index + step) % len(rows)]
                for step in range(1, len(rows))
                if rows[(index + step) % len(rows)].group != row.group
            ),
            (),
        )
        told = [*before.values(), *after.values()]
        for modality, description in before.items():
            left = after.get(modality, ())
            others = [text for name, text in after.items() if name != modality]
            if modality == "table":
                tables = [json.loads(which.table) for which in (clean[row.record], row)]
                traced, lacking = removed_cells(*tables, description, left)
                untraceable += lacking
                found += [
                    (
                        row.group,
                        modality,
                        fate(value, said[index], others, vocabulary.rivals(column, said[index], told)),
                        vocabulary.guess.get(column) == value,
                    )
                    for column, value in traced.items()
                ]
            else:
                found += [
                    (row.group, modality, fate(word, said[index], others), stated(word, next_of_another))
                    for word in removed_words(description, left)
                ]
    return pd.DataFrame(found, columns=["group", "modality", "fate", "guess"]), untraceable
