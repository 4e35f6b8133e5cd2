"""How good perturbed texts are, on texts whose numbers are known."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.analysis.perturbation_quality import distinct_ngram_share, diversity_table
from project.pipeline.text_log import COLUMNS

WORDS = {"A": "apple orchard", "B": "hammer nail"}


def planted(change, rounds=(0,), pieces=lambda index: (["noise"], [False])):
    """Twenty training rows of two classes, and what `change` makes of each text in each round."""
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
    return pd.DataFrame(rows, columns=COLUMNS).astype({"round": "Int64"})


def values(texts, instruction="all"):
    table = diversity_table(texts, "accuracy", 50)
    return {row.measure: row.value for row in table[table["instruction"] == instruction].itertuples()}


def test_distinct_by_hand():
    texts = ["a red thing", "A red hat"]
    assert distinct_ngram_share(texts, 1) == pytest.approx(4 / 6)  # a, red, thing, hat
    assert distinct_ngram_share(texts, 2) == pytest.approx(3 / 6)  # a red, red thing, red hat
    assert np.isnan(distinct_ngram_share([], 1)) and np.isnan(distinct_ngram_share(["!"], 1))


@given(st.lists(st.text("ab ", max_size=12), max_size=6), st.integers(1, 3))
def test_distinct_is_a_share_and_saying_all_twice_halves_it(texts, size):
    value = distinct_ngram_share(texts, size)
    assert np.isnan(value) or 0 <= value <= 1
    assert distinct_ngram_share(texts * 2, size) == pytest.approx(value / 2, nan_ok=True)


def test_texts_left_as_they_are_lose_nothing():
    found = values(planted(lambda text, target: text.upper()))
    assert (found["unchanged"], found["content_kept"], found["label_lost"]) == (1, 1, 0)
    assert found["label"] == found["clean_label"] == 1
    assert found["distinct_2"] == found["clean_distinct_2"]


def test_texts_of_the_other_class_lose_the_label_and_the_words():
    found = values(planted(lambda text, target: text.replace(WORDS[target], WORDS["BA"["AB".index(target)]])))
    assert (found["clean_label"], found["label"], found["label_lost"]) == (1, 0, 1)
    assert found["content_kept"] == pytest.approx(0.5) and found["unchanged"] == 0


def test_each_set_of_instructions_is_told_apart():
    texts = planted(
        lambda text, target: "no word of it" if target == "B" else text,
        rounds=(0, 1),
        pieces=lambda index: (["noise"], [index < 10]) if index % 2 == 0 else (["drop"], [False]),
    )
    assert values(texts)["fallback"] == 0.25
    assert values(texts, "noise")["fallback"] == 0.5 and values(texts, "drop")["fallback"] == 0
    assert values(texts, "noise")["unchanged"] == 1 and values(texts, "drop")["unchanged"] == 0


def test_rules_and_records_without_a_text_have_no_acceptance():
    assert "fallback" not in values(planted(lambda text, target: text, pieces=lambda index: (None, None)))
    some = planted(lambda text, target: text, pieces=lambda index: (["noise"], [True]) if index else ([], []))
    assert values(some)["fallback"] == 1


def test_nothing_is_measured_where_nothing_is_perturbed():
    assert diversity_table(planted(str, rounds=()), "accuracy", 50) is None
