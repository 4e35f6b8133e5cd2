"""Columns are inferred from the training rows, and cells of other rows cannot break them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.data.record import Record
from project.methods.tabular_features import MISSING, UNKNOWN, Columns, fit_columns, parse_number


def rows(**columns):
    """Return records from columns of equal length."""
    return [
        Record(str(index), str(index), table=dict(zip(columns, cells, strict=True)))
        for index, cells in enumerate(zip(*columns.values(), strict=True))
    ]


@pytest.mark.parametrize(
    ("cell", "value"),
    [
        ("4", 4),
        ("-1.5", -1.5),
        (3.0, 3),
        ("1e3", 1000),
        ("$1,250.00", 1250),
        ("50 ringgit", 50),
        ("95 percent", 95),
        ("10%", 10),
        ("1 shared bath", 1),
        ("2 years and 1 month", 25),
        ("1 month", 1),
        ("3 years", 36),
    ],
)
def test_a_cell_with_a_number_is_parsed(cell, value):
    assert parse_number(cell) == value


@pytest.mark.parametrize(
    "cell",
    [
        None,
        "",
        "free",
        "2017-03-28",
        "A4",
        "4x4",
        "1,2",
        "nan",
        "inf",
        float("nan"),
        "5 minutes to the beach by car or on foot",
    ],
)
def test_dates_codes_and_words_are_not_numbers(cell):
    assert parse_number(cell) is None


def test_columns_are_numeric_categorical_text_or_two_of_these():
    train = rows(
        fee=["free", "3 ringgit", "free", "9", "4"],
        city=["A", "B", "A", "B", "C"],
        about=["one pot", "two pans", "a spoon", "a fork", "knives"],
        empty=[None] * 5,
    )
    columns = fit_columns(train)
    assert list(columns.numbers) == ["fee"] and columns.words == ["about"]
    assert columns.categories == {"fee": ["free"], "city": ["A", "B"]}
    assert columns.codes(train).tolist() == [[2, 2], [0, 3], [2, 2], [0, 3], [0, UNKNOWN]]
    assert columns.text(train[0]) == "about: one pot"


def test_values_absent_from_the_training_rows_are_missing_or_unknown():
    columns = fit_columns(rows(city=["A", "A", "B", "B"], price=["1", "2", "3", "4"]))
    records = [Record("x", "x", table={"city": "Z", "other": "A"}), Record("y", "y")]
    assert columns.codes(records).tolist() == [[UNKNOWN], [MISSING]]
    assert np.isnan(columns.scores(records)).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(allow_nan=False, allow_infinity=False))
def test_scores_increase_with_the_value_and_stay_within_those_of_the_training_rows(values, new_value):
    train = rows(price=values)
    columns = fit_columns(train)
    scores = columns.scores(train)[:, 0]
    assert (np.diff(scores[np.argsort(values, kind="stable")]) >= 0).all()
    new_score = columns.scores(rows(price=[new_value]))[0, 0]
    assert scores.min() <= new_score <= scores.max()


def test_columns_can_be_stored_as_json():
    columns = fit_columns(rows(city=["A", "A", "ж"], price=["1", "2", "4"]))
    loaded = Columns(**json.loads(json.dumps(asdict(columns), ensure_ascii=False)))
    records = rows(city=["A", "ж"], price=["3", None])
    np.testing.assert_array_equal(columns.scores(records), loaded.scores(records))
    np.testing.assert_array_equal(columns.codes(records), loaded.codes(records))
