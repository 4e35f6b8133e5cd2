"""A serialized table holds every present cell; missing cells appear if the configuration asks for them."""

import json
import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from project.config.schema import ExpertsConfig
from project.experts.serialization import describe_table

PET = {"kind": "cat", "age": 3, "fee": None, "name": "Мурка"}
CELLS = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())
TABLES = st.dictionaries(st.text(min_size=1), CELLS)


def serialize(table, form, missing="skip"):
    return describe_table(table, ExpertsConfig(table=form, missing_cells=missing))


def markdown_value(value):
    """Return the value as Markdown can hold it: every line break, and a literal `<br>`, is the same line break."""
    return re.sub(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]|<br>", "\n", str(value))


def parse_markdown(markdown):
    """Return the columns and values of a Markdown table, with the escapes undone."""
    rows = [re.fullmatch(r"\| ((?:\\.|[^\\|])*) \| ((?:\\.|[^\\|])*) \|", line) for line in markdown.split("\n")]
    return [tuple(re.sub(r"\\(.)", r"\1", cell.replace("<br>", "\n")) for cell in row.groups()) for row in rows]


@pytest.mark.parametrize(
    "form, missing, expected",
    [
        ("sentences", "skip", "The kind is cat. The age is 3. The name is Мурка."),
        ("sentences", "say", "The kind is cat. The age is 3. The fee is not known. The name is Мурка."),
        ("markdown", "skip", "| column | value |\n| --- | --- |\n| kind | cat |\n| age | 3 |\n| name | Мурка |"),
        (
            "markdown",
            "say",
            "| column | value |\n| --- | --- |\n| kind | cat |\n| age | 3 |\n| fee | unknown |\n| name | Мурка |",
        ),
        ("json", "skip", '{\n  "kind": "cat",\n  "age": 3,\n  "name": "Мурка"\n}'),
        ("json", "say", '{\n  "kind": "cat",\n  "age": 3,\n  "fee": null,\n  "name": "Мурка"\n}'),
    ],
)
def test_each_form_serializes_a_table(form, missing, expected):
    assert serialize(PET, form, missing) == expected


@pytest.mark.parametrize("form", ["sentences", "markdown", "json"])
@pytest.mark.parametrize("table, missing", [({"fee": None, "age": None}, "skip"), ({}, "skip"), ({}, "say")])
def test_a_table_without_cells_is_an_empty_text(form, table, missing):
    assert serialize(table, form, missing) == ""


@given(TABLES)
def test_sentences_of_present_cells_follow_in_order(table):
    assert serialize(table, "sentences") == " ".join(
        serialize({name: value}, "sentences") for name, value in table.items() if value is not None
    )
    assert all(
        f"The {name} is {value}." in serialize(table, "sentences") for name, value in table.items() if value is not None
    )


@given(TABLES)
@example({"a": "first\nsecond", "b": "first\r\nsecond", "c": "first<br>second"})
@example({"a\\|": "\\<br>|\x85\\n"})
def test_a_markdown_table_has_one_line_per_cell_and_parses_back(table):
    text = serialize(table, "markdown", "say")
    expected = [("column", "value"), ("---", "---"), *table.items()]
    assert len(text.splitlines()) == (len(expected) if table else 0)
    if table:
        assert parse_markdown(text) == [
            (markdown_value(name), "unknown" if value is None else markdown_value(value)) for name, value in expected
        ]


@given(TABLES)
def test_json_has_one_line_per_cell_and_parses_back(table):
    text = serialize(table, "json", "say")
    assert json.loads(text or "{}") == table
    assert text.count("\n") == (len(table) + 1 if table else 0)
    present = {name: value for name, value in table.items() if value is not None}
    assert json.loads(serialize(table, "json") or "{}") == present
