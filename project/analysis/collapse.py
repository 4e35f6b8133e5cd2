"""Measure whether texts become alike, and lose the label, from one step of the pipeline to the next.

Collapse is the premise of arXiv 2408.09798, which states no measure of it; the measures are our own choice.
"""

import json
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import torch

from ..config.schema import TextTransformerConfig
from ..data.record import seeded
from ..evaluation.results import BOOTSTRAP_SEED
from ..metrics.bootstrap import estimate_with_interval, group_weights
from ..metrics.scores import SCORES
from ..training.encoder import base_encoder, load_tokenizer
from ..training.tokenization import encode, pad
from .probe import cross_val_row_scores, score_difference

STEPS = ("described", "aligned", "perturbed")
COLLAPSE_COLUMNS = ["split", "condition", "round", "arrow", "measure", "value", "low", "high", "n"]
MAX_RECORDS = 500
"""Maximum number of embedded records per split, drawn by a hash of their id; the rank grows with their number."""
MAX_TOKENS = 256
"""Maximum length of an embedded text, in tokens."""
EMBEDDING_BATCH = 32
"""Number of texts per forward pass of the encoder."""


def effective_rank(embeddings: np.ndarray) -> float:
    """Return exp of the entropy of the singular values divided by their sum; embeddings have shape (texts, width).

    It is 1 if all rows are multiples of one row, the number of rows if they are orthonormal, and NaN if all are 0.
    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    values = np.linalg.svd(np.asarray(embeddings, float), compute_uv=False)
    if not values.sum():
        return float("nan")
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(embeddings: np.ndarray) -> float:
    """Return the mean cosine over all pairs of nonzero rows, shape (texts, width); NaN for a single row."""
    rows = np.asarray(embeddings, float)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    count = len(rows)
    return float((np.square(rows.sum(axis=0)).sum() - count) / (count * (count - 1))) if count > 1 else float("nan")


def equal_share(texts: Sequence[str]) -> float:
    """Return the share of records whose text equals that of another record."""
    counts = Counter(texts)
    return sum(count for count in counts.values() if count > 1) / len(texts)


class Embedder:
    """Map texts to unit vectors: the mean over the tokens of an encoder without adapter and head."""

    def __init__(self, config: TextTransformerConfig):
        self.tokenizer, self.model = load_tokenizer(config), base_encoder(config)
        self.max_tokens = min(MAX_TOKENS, self.tokenizer.model_max_length)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """Return one unit vector per text, shape (texts, width)."""
        batch = pad(encode([(text,) for text in texts], self.tokenizer, self.max_tokens), self.tokenizer)
        hidden = self.model(**batch).last_hidden_state.float()  # some encoders are saved in half precision
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy()


def step_texts(texts: pd.DataFrame) -> pd.DataFrame:
    """Return texts.parquet with one row per step: the columns `arrow` (the step) and `text` are added.

    Rows without a round give the steps described and aligned, rows of a round give perturbed.
    """
    clean, perturbed = (texts[mask] for mask in (texts["round"].isna(), texts["round"].notna()))
    steps = [
        (name, clean.assign(text=[" ".join(json.loads(parts).values()) for parts in clean[name]]))
        for name in ("described", "aligned")
    ]
    steps.append(("perturbed", perturbed.assign(text=perturbed["read"])))
    return pd.concat([rows.assign(arrow=name) for name, rows in steps], ignore_index=True)


def collapse_table(
    texts: pd.DataFrame,
    embed: Callable[[Sequence[str]], np.ndarray],
    metric: str,
    resamples: int,
    watch: Callable = lambda completed, total: None,
) -> pd.DataFrame:
    """Return every measure at every step of texts.parquet, in the columns `COLLAPSE_COLUMNS`.

    `effective_rank`, `mean_cosine` and `equal_texts` measure how similar the texts of the records are. `probe` is the
    score of a linear probe, and `probe_lost` by how much it is worse than at the previous step on the same records;
    both have an interval over groups. The probe of a test row is fitted to the clean texts of the training rows at that
    step and to the other folds' test rows under the same condition. `embed` maps texts to vectors (texts, width);
    `watch` is called with `completed` and `total` parts.
    """
    rows = step_texts(texts).sort_values("record", kind="stable")
    sample = set().union(*(_sample(set(part)) for _, part in rows.groupby("split")["record"]))
    clean_train = rows[(rows["split"] == "train") & rows["round"].isna()]
    vectors: dict[str, np.ndarray] = {}
    row_scores: dict[tuple, np.ndarray] = {}
    table = []
    parts = list(rows.groupby(["arrow", "split", "condition", "round"], dropna=False))
    parts.sort(key=lambda item: (STEPS.index(item[0][0]), item[0][1] != "train", item[0][2] != "clean"))
    for completed, ((step, split, condition, round), part) in enumerate(parts):
        watch(completed=completed, total=len(parts))
        part_texts, groups = part["text"].tolist(), part["group"].tolist()
        measures = _embedding_measures(part["text"][part["record"].isin(sample)].tolist(), embed, vectors)
        measures["equal_texts"] = (equal_share(part_texts), np.nan, np.nan, len(part))

        extra = clean_train[clean_train["arrow"] == step] if split == "test" else clean_train[:0]
        [values] = cross_val_row_scores(
            part_texts,
            part["target"].tolist(),
            groups,
            [part_texts],
            metric,
            (extra["text"].tolist(), extra["target"].tolist()),
        )
        weights = group_weights(groups, resamples, BOOTSTRAP_SEED)
        measures["probe"] = (*estimate_with_interval(values, weights, SCORES[metric].of_mean), len(part))
        row_scores[step, split, condition] = values
        if step != STEPS[0]:
            before = row_scores[STEPS[STEPS.index(step) - 1], split, condition]
            measures["probe_lost"] = (*score_difference(before, values, weights, metric), len(part))
        table += [(split, condition, round, step, name, *numbers) for name, numbers in measures.items()]
    watch(completed=len(parts), total=len(parts))
    return pd.DataFrame(table, columns=COLLAPSE_COLUMNS).astype({"round": "Int64"})


def _sample(records: set[str]) -> list[str]:
    return sorted(records, key=lambda record: (seeded("embedded", record).random(), record))[:MAX_RECORDS]


def _embedding_measures(texts: list[str], embed: Callable, vectors: dict[str, np.ndarray]) -> dict[str, tuple]:
    """Return effective rank and mean cosine of the texts' embeddings; `vectors` caches them by text."""
    new = sorted({text for text in texts if text not in vectors}, key=len)
    for start in range(0, len(new), EMBEDDING_BATCH):
        batch = new[start : start + EMBEDDING_BATCH]
        vectors.update(zip(batch, embed(batch), strict=True))
    embeddings = np.stack([vectors[text] for text in texts])
    return {
        name: (measure(embeddings), np.nan, np.nan, len(texts))
        for name, measure in (("effective_rank", effective_rank), ("mean_cosine", mean_cosine))
    }
