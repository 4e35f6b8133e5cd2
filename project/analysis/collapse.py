"""Do texts become alike, and lose the label, from one arrow of the pipeline to the next?

Collapse is the premise of arXiv 2408.09798, which states no measure of it; these are our own choice.
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

ARROWS = ("described", "aligned", "perturbed")
COLUMNS = ["split", "condition", "round", "arrow", "measure", "value", "low", "high", "n"]
EMBEDDED = 500
"""So many records of a split are embedded at most, drawn by a hash of their id; the rank grows with their number."""
MAX_TOKENS = 256
"""Longest text that is embedded, in tokens."""
BATCH = 32
"""Texts that are embedded side by side."""


def effective_rank(embeddings: np.ndarray) -> float:
    """exp of the entropy of the singular values divided by their sum; embeddings of shape (texts, width).

    1 where all rows are multiples of one, and the number of rows where they are orthonormal; NaN where all are 0.
    Roy and Vetterli 2007, "The effective rank: a measure of effective dimensionality".
    """
    values = np.linalg.svd(np.asarray(embeddings, float), compute_uv=False)
    if not values.sum():
        return float("nan")
    shares = values / values.sum()
    shares = shares[shares > 0]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def mean_cosine(embeddings: np.ndarray) -> float:
    """The mean cosine over all pairs of rows of shape (texts, width), none of them 0; NaN for a single row."""
    rows = np.asarray(embeddings, float)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    count = len(rows)
    return float((np.square(rows.sum(axis=0)).sum() - count) / (count * (count - 1))) if count > 1 else float("nan")


def equal_share(texts: Sequence[str]) -> float:
    """The share of records whose text another record has, letter by letter."""
    counts = Counter(texts)
    return sum(count for count in counts.values() if count > 1) / len(texts)


class Embedder:
    """Texts -> unit vectors: the mean over the tokens of an encoder without adapter or head."""

    def __init__(self, config: TextTransformerConfig):
        self.tokenizer, self.model = load_tokenizer(config), base_encoder(config)
        self.max_tokens = min(MAX_TOKENS, self.tokenizer.model_max_length)

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> np.ndarray:
        """One row a text, shape (texts, width)."""
        batch = pad(encode([(text,) for text in texts], self.tokenizer, self.max_tokens), self.tokenizer)
        hidden = self.model(**batch).last_hidden_state.float()  # some encoders are published in half precision
        mask = batch["attention_mask"].unsqueeze(-1)
        mean = (hidden * mask).sum(1) / mask.sum(1)
        return torch.nn.functional.normalize(mean, dim=-1).numpy()


def arrow_texts(texts: pd.DataFrame) -> pd.DataFrame:
    """texts.parquet with a row an arrow, and its `text`: described and aligned; of a round, perturbed alone."""
    said = texts["round"].isna()
    arrows = [
        (name, texts[said].assign(text=[" ".join(json.loads(parts).values()) for parts in texts[said][name]]))
        for name in ("described", "aligned")
    ]
    arrows.append(("perturbed", texts[~said].assign(text=texts["read"][~said])))
    return pd.concat([rows.assign(arrow=name) for name, rows in arrows], ignore_index=True)


def collapse_table(
    texts: pd.DataFrame,
    embed: Callable[[Sequence[str]], np.ndarray],
    metric: str,
    resamples: int,
    watch: Callable = lambda completed, total: None,
) -> pd.DataFrame:
    """Every measure at every arrow, in the columns `COLUMNS`, from texts.parquet; `embed` gives vectors (texts, width).

    `effective_rank`, `mean_cosine` and `equal_texts` say how alike the records' texts are. `probe` is the score of a
    plain reader, and `probe_lost` by how much it is worse than at the arrow before, on the same records; both have an
    interval over groups. The probe of a test row learned from the training rows' clean texts at that arrow, and from
    the other folds' test rows as the condition leaves them. `watch` is told the steps that are `completed` and their
    `total`.
    """
    rows = arrow_texts(texts).sort_values("record", kind="stable")
    sample = set().union(*(_sample(set(part)) for _, part in rows.groupby("split")["record"]))
    learned = rows[(rows["split"] == "train") & rows["round"].isna()]
    vectors: dict[str, np.ndarray] = {}
    probed: dict[tuple, np.ndarray] = {}
    found = []
    parts = list(rows.groupby(["arrow", "split", "condition", "round"], dropna=False))
    parts.sort(key=lambda item: (ARROWS.index(item[0][0]), item[0][1] != "train", item[0][2] != "clean"))
    for done, ((arrow, split, condition, round), part) in enumerate(parts):
        watch(completed=done, total=len(parts))
        said, groups = part["text"].tolist(), part["group"].tolist()
        measures = _alike(part["text"][part["record"].isin(sample)].tolist(), embed, vectors)
        measures["equal_texts"] = (equal_share(said), np.nan, np.nan, len(said))

        known = learned[learned["arrow"] == arrow] if split == "test" else learned[:0]
        [values] = cross_val_row_scores(
            said, part["target"].tolist(), groups, [said], metric, (known["text"].tolist(), known["target"].tolist())
        )
        weights = group_weights(groups, resamples, BOOTSTRAP_SEED)
        measures["probe"] = (*estimate_with_interval(values, weights, SCORES[metric].of_mean), len(said))
        probed[arrow, split, condition] = values
        if arrow != ARROWS[0]:
            before = probed[ARROWS[ARROWS.index(arrow) - 1], split, condition]
            measures["probe_lost"] = (*score_difference(before, values, weights, metric), len(said))
        found += [(split, condition, round, arrow, name, *numbers) for name, numbers in measures.items()]
    watch(completed=len(parts), total=len(parts))
    return pd.DataFrame(found, columns=COLUMNS).astype({"round": "Int64"})


def _sample(records: set[str]) -> list[str]:
    return sorted(records, key=lambda record: (seeded("embedded", record).random(), record))[:EMBEDDED]


def _alike(said: list[str], embed: Callable, vectors: dict[str, np.ndarray]) -> dict[str, tuple]:
    """Rank and cosine of the texts' embeddings; a text is embedded once, and its vector is kept in `vectors`."""
    new = sorted({text for text in said if text not in vectors}, key=len)
    for start in range(0, len(new), BATCH):
        batch = new[start : start + BATCH]
        vectors.update(zip(batch, embed(batch), strict=True))
    embedded = np.stack([vectors[text] for text in said])
    nothing = (np.nan, np.nan, len(said))
    return {"effective_rank": (effective_rank(embedded), *nothing), "mean_cosine": (mean_cosine(embedded), *nothing)}
