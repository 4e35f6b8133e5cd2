"""Every present cell is told, on its own line where there are lines; a missing one as the configuration says."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from project.config.schema import ExpertsConfig
from project.experts.serialization import describe_table

PET = {"kind": "cat", "age": 3, "fee": None, "name": "Мурка"}
CELLS = st.one_of(st.text(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.booleans(), st.none())
TABLES = st.dictionaries(st.text(min_size=1), CELLS)


def said(table, form, missing="skip"):
    return describe_table(table, ExpertsConfig(table=form, missing_cells=missing))


def in_lines(value):
    """The value as Markdown can hold it: whatever ends a line as one sign."""
    return re.sub(r"\r\n|[\n\r\v\f\x1c-\x1e\x85\u2028\u2029]", "\n", str(value))


def cells_of(markdown):
    """The columns and values of a Markdown table, read back with the escapes undone."""
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
def test_a_table_reads_as_its_form_says(form, missing, expected):
    assert said(PET, form, missing) == expected


@pytest.mark.parametrize("form", ["sentences", "markdown", "json"])
@pytest.mark.parametrize("table, missing", [({"fee": None, "age": None}, "skip"), ({}, "skip"), ({}, "say")])
def test_without_a_cell_to_tell_there_is_no_text(form, table, missing):
    assert said(table, form, missing) == ""


@given(TABLES)
def test_the_sentences_of_the_present_cells_follow_in_order(table):
    assert said(table, "sentences") == " ".join(
        said({name: value}, "sentences") for name, value in table.items() if value is not None
    )
    assert all(
        f"The {name} is {value}." in said(table, "sentences") for name, value in table.items() if value is not None
    )


@given(TABLES)
def test_a_markdown_table_has_one_line_a_cell_and_reads_back(table):
    text = said(table, "markdown", "say")
    expected = [("column", "value"), ("---", "---"), *table.items()]
    assert len(text.splitlines()) == (len(expected) if table else 0)
    if table:
        assert cells_of(text) == [
            (in_lines(name), "unknown" if value is None else in_lines(value)) for name, value in expected
        ]


@given(TABLES)
def test_json_has_one_line_a_cell_and_reads_back(table):
    text = said(table, "json", "say")
    assert json.loads(text or "{}") == table
    assert text.count("\n") == (len(table) + 1 if table else 0)
    present = {name: value for name, value in table.items() if value is not None}
    assert json.loads(said(table, "json") or "{}") == present
