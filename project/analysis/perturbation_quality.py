"""Measure perturbed texts: diversity, distance from their source, fallbacks, and whether the label survives."""

import json
from collections.abc import Sequence

import numpy as np
import pandas as pd

from ..evaluation.results import BOOTSTRAP_SEED
from ..llm.quality_gate import facts_kept
from ..metrics.bootstrap import estimate_with_interval, group_weights
from ..metrics.scores import SCORES
from .probe import cross_val_row_scores, score_difference
from .recovery import tokens

DIVERSITY_COLUMNS = ["instruction", "measure", "value", "low", "high", "n"]


def distinct_ngram_share(texts: Sequence[str], size: int) -> float:
    """Return the number of distinct n-grams of `size` words divided by the number of words; NaN without a word.

    Li et al. 2016, "A Diversity-Promoting Objective Function for Neural Conversation Models" (arXiv 1510.03055),
    section 5.3: distinct-1 and distinct-2. The value falls with the amount of text: compare it on equally many texts.
    """
    words = [tokens(text) for text in texts]
    ngrams = {text[start : start + size] for text in words for start in range(len(text) - size + 1)}
    total = sum(map(len, words))
    return len(ngrams) / total if total else float("nan")


def diversity_table(texts: pd.DataFrame, metric: str, resamples: int) -> pd.DataFrame | None:
    """Return measures of the training rows' perturbed texts; None if texts.parquet has no perturbed texts.

    The table has the columns `DIVERSITY_COLUMNS`, with rows for `all` and for each instruction set of the language
    model, over all rounds; a record with several rewritten pieces counts once for each of them. The measures:

    `distinct_1`, `distinct_2`: distinct n-grams of the perturbed texts, means over the rounds; `clean_distinct_1` and
    `clean_distinct_2` are those of the same records' unperturbed texts;
    `unchanged`: the share of texts with the same words in the same order;
    `content_kept`: the share of the unperturbed text's content words that the perturbed text contains;
    `fallback`: the share of pieces that the rules rewrote in place of the model;
    `label`, `clean_label`: the score of a probe fitted to unperturbed texts of other groups, on perturbed and
    unperturbed texts; `label_lost`: by how much it is worse on the perturbed ones.

    Means over records have an interval over groups.
    """
    train = texts[texts["split"] == "train"]
    perturbed = train[train["round"].notna()]
    if perturbed.empty:
        return None
    clean = train[train["round"].isna()].sort_values("record").reset_index(drop=True)
    clean["text"] = [" ".join(json.loads(parts).values()) for parts in clean["aligned"]]
    before = clean.set_index("record")["text"]
    rounds = []
    for _, rows in perturbed.groupby("round"):
        rows = rows.set_index("record").loc[clean["record"]].reset_index()
        views = [clean["text"].tolist(), rows["read"].tolist()]
        values = cross_val_row_scores(views[0], clean["target"].tolist(), clean["group"].tolist(), views, metric)
        rounds.append(rows.assign(before=before[rows["record"]].to_numpy(), clean_value=values[0], value=values[1]))
    rows = pd.concat(rounds, ignore_index=True)
    table = _measures("all", rows, metric, resamples)
    pieces = rows.dropna(subset="instruction").explode(["instruction", "fallback"])
    for instruction, part in pieces.dropna(subset="instruction").groupby("instruction"):
        table += _measures(instruction, part, metric, resamples)
    return pd.DataFrame(table, columns=DIVERSITY_COLUMNS)


def _measures(instruction: str, rows: pd.DataFrame, metric: str, resamples: int) -> list[tuple]:
    before, after = rows["before"].tolist(), rows["read"].tolist()
    weights = group_weights(rows["group"], resamples, BOOTSTRAP_SEED)
    rounds = [part for _, part in rows.groupby("round")]
    measures = {
        f"{name}distinct_{size}": (
            np.mean([distinct_ngram_share(part[column], size) for part in rounds]),
            np.nan,
            np.nan,
        )
        for name, column in (("", "read"), ("clean_", "before"))
        for size in (1, 2)
    }
    pairs = list(zip(before, after, strict=True))
    measures["unchanged"] = estimate_with_interval([tokens(old) == tokens(new) for old, new in pairs], weights)
    measures["content_kept"] = estimate_with_interval([facts_kept(old, new) for old, new in pairs], weights)
    rewritten = rows["fallback"].map(np.size).where(rows["fallback"].notna(), 0).to_numpy() > 0
    if rewritten.any():
        measures["fallback"] = estimate_with_interval(rows["fallback"][rewritten].map(np.mean), weights[:, rewritten])
    of_mean = SCORES[metric].of_mean
    measures["clean_label"] = estimate_with_interval(rows["clean_value"], weights, of_mean)
    measures["label"] = estimate_with_interval(rows["value"], weights, of_mean)
    measures["label_lost"] = score_difference(rows["clean_value"].to_numpy(), rows["value"].to_numpy(), weights, metric)
    return [(instruction, name, *numbers, len(rows)) for name, numbers in measures.items()]
