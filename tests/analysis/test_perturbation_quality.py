"""Measures of perturbed texts, on texts with known values."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.analysis.perturbation_quality import distinct_ngram_share, diversity_table
from project.pipeline.text_log import TEXT_COLUMNS

WORDS = {"A": "apple orchard", "B": "hammer nail"}


def perturbed_texts(change, rounds=(0,), pieces=lambda index: (["noise"], [False])):
    """Return twenty training rows of two classes, and the text that `change` returns for each of them in each round."""
    rows = []
    for index in range(20):
        target = "AB"[index % 2]
        text = f"{WORDS[target]} number {index}"
        for round in (None, *rounds):
            instruction, fallback = (None, None) if round is None else pieces(index)
            rows.append(
                {
                    "split": "train",
                    "condition": "clean",
                    "round": round,
                    "record": f"r{index:02d}",
                    "group": f"g{index}",
                    "target": target,
                    "described": "{}",
                    "table": None,
                    "aligned": json.dumps({"summary": text}),
                    "read": text if round is None else change(text, target),
                    "instruction": instruction,
                    "fallback": fallback,
                }
            )
    return pd.DataFrame(rows, columns=TEXT_COLUMNS).astype({"round": "Int64"})


def values(texts, instruction="all"):
    table = diversity_table(texts, "accuracy", 50)
    return {row.measure: row.value for row in table[table["instruction"] == instruction].itertuples()}


def test_distinct_ngrams_by_hand():
    texts = ["a red thing", "A red hat"]
    assert distinct_ngram_share(texts, 1) == pytest.approx(4 / 6)  # a, red, thing, hat
    assert distinct_ngram_share(texts, 2) == pytest.approx(3 / 6)  # a red, red thing, red hat
    assert np.isnan(distinct_ngram_share([], 1)) and np.isnan(distinct_ngram_share(["!"], 1))


@given(st.lists(st.text("ab ", max_size=12), max_size=6), st.integers(1, 3))
def test_distinct_ngrams_are_a_share_and_repeating_all_texts_halves_it(texts, size):
    value = distinct_ngram_share(texts, size)
    assert np.isnan(value) or 0 <= value <= 1
    assert distinct_ngram_share(texts * 2, size) == pytest.approx(value / 2, nan_ok=True)


def test_unchanged_texts_lose_nothing():
    measures = values(perturbed_texts(lambda text, target: text.upper()))
    assert (measures["unchanged"], measures["content_kept"], measures["label_lost"]) == (1, 1, 0)
    assert measures["label"] == measures["clean_label"] == 1
    assert measures["distinct_2"] == measures["clean_distinct_2"]


def test_words_of_the_other_class_lose_the_label_and_content():
    measures = values(
        perturbed_texts(lambda text, target: text.replace(WORDS[target], WORDS["BA"["AB".index(target)]]))
    )
    assert (measures["clean_label"], measures["label"], measures["label_lost"]) == (1, 0, 1)
    assert measures["content_kept"] == pytest.approx(0.5) and measures["unchanged"] == 0


def test_each_instruction_set_has_its_own_rows():
    texts = perturbed_texts(
        lambda text, target: "no word of it" if target == "B" else text,
        rounds=(0, 1),
        pieces=lambda index: (["noise"], [index < 10]) if index % 2 == 0 else (["drop"], [False]),
    )
    assert values(texts)["fallback"] == 0.25
    assert values(texts, "noise")["fallback"] == 0.5 and values(texts, "drop")["fallback"] == 0
    assert values(texts, "noise")["unchanged"] == 1 and values(texts, "drop")["unchanged"] == 0


def test_rules_and_empty_records_have_no_fallback_rate():
    assert "fallback" not in values(perturbed_texts(lambda text, target: text, pieces=lambda index: (None, None)))
    rewritten = perturbed_texts(
        lambda text, target: text, pieces=lambda index: (["noise"], [True]) if index else ([], [])
    )
    assert values(rewritten)["fallback"] == 1


def test_without_perturbed_texts_there_is_no_table():
    assert diversity_table(perturbed_texts(str, rounds=()), "accuracy", 50) is None
