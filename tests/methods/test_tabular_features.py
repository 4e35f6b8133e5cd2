"""Columns are what the training rows make of them, and no cell of another row can upset them."""

import json
from dataclasses import asdict

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.data.record import Record
from project.methods.tabular_features import MISSING, UNKNOWN, Columns, fit_columns, parse_number


def rows(**columns):
    """Records of columns of equal length."""
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
def test_a_cell_that_tells_a_number_is_read_as_one(cell, value):
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
def test_dates_codes_and_words_tell_none(cell):
    assert parse_number(cell) is None


def test_columns_are_numbers_categories_words_or_two_of_these():
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


def test_what_the_training_rows_do_not_have_is_missing_or_unknown():
    columns = fit_columns(rows(city=["A", "A", "B", "B"], price=["1", "2", "3", "4"]))
    seen = [Record("x", "x", table={"city": "Z", "other": "A"}), Record("y", "y")]
    assert columns.codes(seen).tolist() == [[UNKNOWN], [MISSING]]
    assert np.isnan(columns.scores(seen)).all()


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=40), st.floats(allow_nan=False, allow_infinity=False))
def test_scores_rise_with_the_value_and_stay_within_those_of_the_training_rows(values, other):
    train = rows(price=values)
    columns = fit_columns(train)
    own = columns.scores(train)[:, 0]
    assert (np.diff(own[np.argsort(values, kind="stable")]) >= 0).all()
    found = columns.scores(rows(price=[other]))[0, 0]
    assert own.min() <= found <= own.max()


def test_columns_survive_json():
    columns = fit_columns(rows(city=["A", "A", "ж"], price=["1", "2", "4"]))
    again = Columns(**json.loads(json.dumps(asdict(columns), ensure_ascii=False)))
    seen = rows(city=["A", "ж"], price=["3", None])
    np.testing.assert_array_equal(columns.scores(seen), again.scores(seen))
    np.testing.assert_array_equal(columns.codes(seen), again.codes(seen))
