"""Collapse: every measure on texts and vectors with known values, and its invariants."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from project.analysis.collapse import Embedder, collapse_table, effective_rank, equal_share, mean_cosine, step_texts
from project.config.schema import TextTransformerConfig
from project.pipeline.text_log import TEXT_COLUMNS

ROWS = arrays(
    float, st.tuples(st.integers(2, 6), st.integers(2, 5)), elements=st.floats(0.1, 10).map(lambda x: x - 5)
).filter(lambda rows: (np.linalg.norm(rows, axis=1) > 0.1).all())


def letter_counts(texts):
    """Return one vector per text: the counts of a few letters."""
    return np.array([[1 + text.count(letter) for letter in "aeiost"] for text in texts], float)


def texts_frame(rows):
    """Return texts.parquet from rows of (split, condition, round, record, target, described, aligned, read)."""
    return pd.DataFrame(
        [
            {
                "split": split,
                "condition": condition,
                "round": round,
                "record": record,
                "group": record,
                "target": target,
                "described": json.dumps({"text": described}),
                "table": None,
                "aligned": json.dumps({"summary": aligned}),
                "read": read,
                "instruction": None,
                "fallback": None,
            }
            for split, condition, round, record, target, described, aligned, read in rows
        ],
        columns=TEXT_COLUMNS,
    ).astype({"round": "Int64"})


def collapsed_texts():
    """Described texts state the class, and aligned test texts are equal; round 0 of the training rows keeps it."""
    words = {"A": "apple orchard", "B": "hammer nail", "C": "tram rails"}
    rows = []
    for index in range(30):
        target = "ABC"[index % 3]
        text = f"{words[target]} {'xyz'[index % 2]}"
        rows.append(("test", "clean", None, f"t{index:02d}", target, text, "a thing", "a thing"))
        rows.append(("test", "noisy(all, 0.5)", None, f"t{index:02d}", target, "nothing left", "a thing", "a thing"))
        rows.append(("train", "clean", None, f"r{index:02d}", target, text, text, text))
        rows.append(("train", "clean", 0, f"r{index:02d}", target, text, text, f"well {text}"))
    return texts_frame(rows)


def test_equal_rows_have_rank_one_and_orthonormal_rows_full_rank():
    assert effective_rank(np.ones((7, 4))) == pytest.approx(1)
    assert effective_rank(np.outer([1, -2, 3], [1, 2])) == pytest.approx(1)
    for count in (1, 3, 5):
        assert effective_rank(np.eye(5)[:count]) == pytest.approx(count)
    assert np.isnan(effective_rank(np.zeros((2, 2))))


def test_rank_by_hand():
    # Singular values 3 and 1: shares 3/4 and 1/4.
    assert effective_rank(np.diag([3.0, 1.0])) == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


@settings(max_examples=40)
@given(ROWS, st.randoms(), st.floats(0.5, 4))
def test_rank_and_cosine_do_not_depend_on_order_or_scale(rows, random, scale):
    order = random.sample(range(len(rows)), len(rows))
    assert effective_rank(scale * rows[order]) == pytest.approx(effective_rank(rows), rel=1e-6)
    assert mean_cosine(scale * rows[order]) == pytest.approx(mean_cosine(rows), abs=1e-9)
    assert 1 - 1e-9 <= effective_rank(rows) <= min(rows.shape) + 1e-9


@settings(max_examples=40)
@given(ROWS)
def test_cosine_is_the_mean_over_all_pairs(rows):
    cosine = [
        rows[a] @ rows[b] / np.linalg.norm(rows[a]) / np.linalg.norm(rows[b])
        for a in range(len(rows))
        for b in range(a)
    ]
    assert mean_cosine(rows) == pytest.approx(np.mean(cosine), abs=1e-9)


def test_the_mean_cosine_of_one_text_is_nan():
    assert np.isnan(mean_cosine(np.ones((1, 3))))


def test_share_of_equal_texts_counts_all_duplicates():
    assert equal_share(["a", "b", "a", "a"]) == 0.75
    assert equal_share(["a", "b", "A"]) == 0
    assert equal_share(["a", "a"]) == 1


def test_step_texts_has_two_steps_for_clean_rows_and_one_for_rounds():
    rows = step_texts(collapsed_texts())
    assert set(rows["arrow"][rows["round"].isna()]) == {"described", "aligned"}
    assert set(rows["arrow"][rows["round"].notna()]) == {"perturbed"}
    assert rows["text"][rows["round"].notna()].str.startswith("well ").all()


def test_a_collapse_of_aligned_texts_shows_in_every_measure():
    table = collapse_table(collapsed_texts(), letter_counts, "accuracy", 100)

    def cell(measure, step, condition="clean", split="test"):
        return table[
            (table.measure == measure) & (table.arrow == step) & (table.condition == condition) & (table.split == split)
        ].iloc[0]

    assert cell("effective_rank", "aligned").value == pytest.approx(1, abs=1e-6)
    assert cell("effective_rank", "described").value > 1.5
    assert cell("mean_cosine", "aligned").value == pytest.approx(1)
    assert (cell("equal_texts", "aligned").value, cell("equal_texts", "described", split="train").value) == (1, 1)
    assert cell("probe", "described").value == 1 and cell("probe", "aligned").value <= 0.5
    lost = cell("probe_lost", "aligned")
    assert lost.value >= 0.5 and lost.low > 0
    assert cell("probe", "described", "noisy(all, 0.5)").value <= 0.5
    assert cell("probe_lost", "perturbed", split="train").value == 0


def test_the_table_does_not_depend_on_the_order_of_rows():
    texts = collapsed_texts()
    shuffled = texts.sample(frac=1, random_state=3).reset_index(drop=True)
    pd.testing.assert_frame_equal(
        collapse_table(texts, letter_counts, "accuracy", 20), collapse_table(shuffled, letter_counts, "accuracy", 20)
    )


def test_numeric_targets_are_probed_by_their_error():
    texts = collapsed_texts()
    texts["target"] = texts["target"].map({"A": 1.0, "B": 10.0, "C": 100.0})
    for metric in ("rmse", "rmse_log"):
        table = collapse_table(texts, letter_counts, metric, 50)
        probe = table[(table.measure == "probe") & (table.split == "test") & (table.condition == "clean")]
        errors = dict(zip(probe["arrow"], probe["value"], strict=True))
        assert errors["described"] < errors["aligned"] / 2
        lost = table[(table.measure == "probe_lost") & (table.split == "test") & (table.condition == "clean")]
        assert lost["value"].item() == pytest.approx(errors["aligned"] - errors["described"])


def test_embeddings_are_unit_vectors_and_do_not_depend_on_the_batch(tiny_encoder):
    embed = Embedder(TextTransformerConfig(encoder=str(tiny_encoder)))
    single, batch = embed(["a red thing"]), embed(["a red thing", "the price of a large blue thing " * 40])
    assert batch.shape == (2, 32)
    np.testing.assert_allclose(np.linalg.norm(batch, axis=1), 1, rtol=1e-5)
    np.testing.assert_allclose(single[0], batch[0], atol=1e-5)
