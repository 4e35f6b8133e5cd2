"""A CSV, TSV, JSONL or Parquet file becomes Records, or one error that lists every problem."""

import gzip
import json
from datetime import date, datetime

import pandas as pd
import pytest
from PIL import Image

from project.config.schema import TableConfig
from project.data.sources.table import read_table
from project.data.tabular_io import MAX_SHOWN
from project.errors import UserError

CSV = """id,photo,title,body,price,rooms,new,target
007,a.png,Cat,soft and small,1.5,3.0,True,pet
008,b.png,Car,,20.25,4.0,False,thing
009,,Dog,loud,,,,pet
"""


@pytest.fixture
def folder(tmp_path):
    """Return a folder with two small images; its parent has an image that no table in the folder may read."""
    inside = tmp_path / "rows"
    inside.mkdir()
    for path, colour in [(inside / "a.png", "red"), (inside / "b.png", "blue"), (tmp_path / "secret.png", "black")]:
        Image.new("RGB", (4, 4), colour).save(path)
    return inside


def config(folder, name="rows.csv", **values):
    columns = dict(image="photo", text=["title", "body"], table=["price", "rooms", "new"], target="target", id="id")
    return TableConfig(path=str(folder / name), **(columns | values))


def read(folder, content, name="rows.csv", **values):
    data = content if isinstance(content, bytes) else content.encode()
    (folder / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return read_table(config(folder, name, **values))


def problems(folder, content, name="rows.csv", **values):
    """Return the lines of the error; each names the file, except the line that counts further problems."""
    with pytest.raises(UserError) as error:
        read(folder, content, name, **values)
    lines = str(error.value).split("\n")
    assert all(str(folder / name) in line for line in lines[:MAX_SHOWN])
    return lines


def words(folder, cells):
    """Return the cells of a Parquet column as table words; a target and a text keep each row valid."""
    target = ["x", "y"] * len(cells)
    frame = pd.DataFrame({"cell": cells, "text": "t", "target": target[: len(cells)]})
    frame.to_parquet(folder / "rows.parquet")
    records = read_table(config(folder, "rows.parquet", image=None, text=["text"], table=["cell"], id=None))
    return [(record.table or {}).get("cell") for record in records]


def test_a_csv_becomes_records_with_missing_cells_kept(folder):
    first, second, third = read(folder, CSV)
    assert (first.id, first.group, first.target) == ("007", "007", "pet")
    assert first.image == (folder / "a.png").resolve()
    assert first.text == "Cat\nsoft and small"
    assert first.table == {"price": "1.5", "rooms": "3", "new": "yes"}
    assert second.text == "Car"
    assert read(folder, CSV.replace("1.5", ""))[0].table == {"price": None, "rooms": "3", "new": "yes"}
    assert third.image is None and third.table is None and third.present == ("text",)


@pytest.mark.parametrize("name", ["rows.tsv", "rows.csv.gz", "rows.tsv.gz", "ROWS.CSV"])
def test_every_file_ending_gives_the_same_records_as_the_csv(folder, name):
    content = CSV.replace(",", "\t") if "tsv" in name else CSV
    assert read(folder, content, name) == read(folder, CSV)


def test_a_parquet_gives_the_same_records_as_the_csv(folder):
    expected = read(folder, CSV)
    frame = pd.read_csv(folder / "rows.csv", dtype={"id": str})
    frame.to_parquet(folder / "rows.parquet")
    assert read_table(config(folder, "rows.parquet")) == expected
    frame.set_index("id").to_parquet(folder / "index.parquet")
    assert read_table(config(folder, "index.parquet")) == expected


def test_without_an_id_rows_are_numbered_and_each_is_a_group(folder):
    records = read(folder, CSV, id=None)
    assert [(record.id, record.group) for record in records] == [("1", "1"), ("2", "2"), ("3", "3")]


def test_a_group_column_is_kept_as_written(folder):
    records = read(
        folder, "owner,text,target\n01,a,x\n1,b,y\n", image=None, id=None, table=[], text=["text"], group="owner"
    )
    assert [record.group for record in records] == ["01", "1"]


def test_a_byte_order_mark_is_not_part_of_the_first_column(folder):
    assert [record.id for record in read(folder, b"\xef\xbb\xbf" + CSV.encode())] == ["007", "008", "009"]


def test_quotes_commas_and_newlines_inside_a_cell_are_kept(folder):
    records = read(folder, CSV.replace("soft and small", '"He said ""hi"",\nand left"'))
    assert records[0].text == 'Cat\nHe said "hi",\nand left'
    assert len(records) == 3


def test_none_and_na_are_missing_only_in_table_columns(folder):
    records = read(folder, "title,n,target\nNone,1,NA\nx,NA,None\n", image=None, text=["title"], table=["n"], id=None)
    assert [(record.text, record.table, record.target) for record in records] == [
        ("None", {"n": "1"}, "NA"),
        ("x", None, "None"),
    ]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        ([3.0, None, -4.0], ["3", None, "-4"]),
        ([3, 2**60], ["3", str(2**60)]),
        ([3.0, 2.5], ["3", "2.5"]),
        ([1234567.89, 0.1 + 0.2, 0.000123456789, 0.0], ["1234570", "0.3", "0.000123457", "0"]),
        ([1e20, 1e-9, float("inf"), 0.5], ["1e+20", "1e-09", "inf", "0.5"]),
        ([True, None, False], ["yes", None, "no"]),
        ([date(2020, 1, 5), date(2021, 1, 5)], ["2020-01-05", "2021-01-05"]),
        ([datetime(2020, 1, 5), datetime(2020, 1, 5, 12, 30)], ["2020-01-05", "2020-01-05 12:30:00"]),
        (["007", " ", None], ["007", None, None]),
    ],
)
def test_table_cells_become_words(folder, cells, expected):
    assert words(folder, cells) == expected


def test_dates_in_a_csv_stay_as_written(folder):
    records = read(folder, "day,target\n5.1.2020,x\n2020-01-05,y\n", image=None, text=[], table=["day"], id=None)
    assert [record.table["day"] for record in records] == ["5.1.2020", "2020-01-05"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["3.0", "4.0"], ["3", "4"]),
        (["007", "7"], ["007", "7"]),
        (["3.5", "4.0"], ["3.5", "4.0"]),
        (["True", "no"], None),
    ],
)
def test_targets_are_strings_as_written_except_whole_numbers_with_a_point(folder, values, expected):
    rows = "".join(f"t,{value}\n" for value in values)
    records = read(folder, "text,target\n" + rows, image=None, text=["text"], table=[], id=None, task="class")
    assert [record.target for record in records] == (expected or values)


def test_a_float_target_of_a_parquet_is_a_whole_number(folder):
    pd.DataFrame({"text": ["a", "b"], "target": [3.0, 4.0]}).to_parquet(folder / "rows.parquet")
    records = read_table(config(folder, "rows.parquet", image=None, text=["text"], table=[], id=None))
    assert [record.target for record in records] == ["3", "4"]


def test_a_missing_file_names_its_path(folder):
    with pytest.raises(UserError, match="rows.csv: no such file; mend data.path"):
        read_table(config(folder))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("rows.xlsx", CSV, "unknown ending"),
        ("rows.csv", "", "empty (0 bytes)"),
        ("rows.parquet", "", "empty (0 bytes)"),
        ("rows.csv.gz", "", "no header"),
        ("rows.csv", CSV.split("\n")[0], "no rows"),
        ("rows.parquet", CSV, "not readable as parquet"),
        ("rows.csv", CSV + "1,2,3,4,5,6,7,8,9\n", "Expected 8 fields in line 5, saw 9"),
        ("rows.csv", CSV.replace("id,photo", "photo"), "more cells than the header"),
        ("rows.csv", CSV + '"', "EOF inside string"),
        (
            "rows.csv",
            CSV.replace("soft", "søft").encode("latin-1"),
            "not UTF-8, but maybe Latin-1, by the byte 0xf8 in line 2",
        ),
        ("rows.csv.gz", CSV.replace("soft", "søft").encode("latin-1"), "Latin-1, by the byte 0xf8 in line 2"),
        ("rows.csv", CSV.encode("utf-16"), "UTF-16"),
    ],
)
def test_an_unreadable_file_is_an_error_in_one_line(folder, name, content, message):
    (line,) = problems(folder, content, name)
    assert message in line


def test_a_damaged_gzip_is_a_user_error(folder):
    for data in (CSV.encode(), gzip.compress(CSV.encode())[:-20]):
        (folder / "rows.csv.gz").write_bytes(data)
        with pytest.raises(UserError, match="not readable as csv.gz"):
            read_table(config(folder, "rows.csv.gz"))


def test_each_unknown_column_is_named_with_a_similar_column_or_all_columns(folder):
    lines = problems(folder, CSV, text=["Title", "zzzzzz"], table=["pirce"], id="ID")
    assert len(lines) == 4
    assert "no column 'ID', which data.id names; did you mean 'id'?" in lines[0]
    assert "did you mean 'title'?" in lines[1]
    assert "no column 'zzzzzz', which data.text names; the columns are 'id', 'photo'" in lines[2]
    assert "did you mean 'price'?" in lines[3]


def test_a_table_without_input_columns_is_refused(folder):
    (line,) = problems(folder, "id,target\n1,x\n2,y\n", image=None, text=[], table=[])
    assert "no input columns" in line


@pytest.mark.parametrize("key", ["text", "table"])
def test_the_target_among_the_inputs_is_refused(folder, key):
    (line,) = problems(folder, CSV, **{key: ["target"]})
    assert f"column 'target' is the target and an input; remove it from data.{key}" in line


def test_the_problems_of_all_rows_are_listed_with_row_and_column(folder):
    (folder / "truncated.png").write_bytes((folder / "a.png").read_bytes()[:-20])
    (folder / "text.png").write_text("not an image")
    rows = ["id,photo,title,target", "1,gone.png,t,x", "1,truncated.png,t,x", "2,text.png,t,", "3,,,x", ",a.png,t,x"]
    lines = problems(folder, "\n".join(rows), text=["title"], table=["titel"])
    expected = [
        ("no column 'titel'", "did you mean 'title'?"),
        ("column 'target'", "always 'x'"),
        ("row 1, column 'photo'", "no image 'gone.png'"),
        ("row 2, column 'id'", "'1' is already the id of row 1"),
        ("row 2, column 'photo'", "'truncated.png' is damaged"),
        ("row 3, column 'target'", "no target"),
        ("row 3, column 'photo'", "'text.png' is damaged"),
        ("row 5, column 'id'", "no id"),
    ]
    assert len(lines) == len(expected)
    assert all(where in line and what in line for line, (where, what) in zip(lines, expected, strict=True))


def test_a_row_without_any_modality_is_refused(folder):
    (line,) = problems(folder, CSV + "010,, ,,,,,pet\n")
    assert "row 4: all input columns are empty; fill one of photo, title, body, price, rooms, new" in line


def test_a_row_without_a_group_is_refused(folder):
    (line,) = problems(folder, "g,t,target\na,t,x\n,t,y\n", image=None, text=["t"], table=[], id=None, group="g")
    assert "row 2, column 'g': no group" in line


def test_lists_or_bytes_in_a_column_are_refused(folder):
    frame = pd.DataFrame({"list": [[1], [2]], "bytes": [b"a", b"b"], "target": ["x", "y"]})
    frame.to_parquet(folder / "rows.parquet")
    with pytest.raises(UserError) as error:
        read_table(config(folder, "rows.parquet", image="bytes", text=[], table=["list"], id=None))
    assert str(error.value).count("holds lists, objects or bytes, first in row 1") == 2


def jsonl(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "rows.ndjson"])
def test_a_jsonl_gives_the_same_records_as_the_csv(folder, name):
    expected = read(folder, CSV)
    rows = [
        {
            "id": "007",
            "photo": "a.png",
            "title": "Cat",
            "body": "soft and small",
            "price": 1.5,
            "rooms": 3,
            "new": True,
            "target": "pet",
        },
        {"id": "008", "photo": "b.png", "title": "Car", "price": 20.25, "rooms": 4.0, "new": False, "target": "thing"},
        {"id": "009", "photo": None, "title": "Dog", "body": "loud", "price": None, "target": "pet"},
    ]
    assert read(folder, "\ufeff" + jsonl(*rows) + "\n\n", name) == expected


def test_a_jsonl_keeps_large_whole_numbers_next_to_missing_cells(folder):
    records = read(
        folder,
        jsonl({"id": 2**53 + 1, "n": 5, "target": "x"}, {"id": 2, "target": "y", "title": "t"}),
        "rows.jsonl",
        image=None,
        text=["title"],
        table=["n"],
    )
    assert [(record.id, record.table) for record in records] == [(str(2**53 + 1), {"n": "5"}), ("2", None)]


def test_all_invalid_lines_of_a_jsonl_are_named(folder):
    valid_line = jsonl({"t": "a", "target": "x"})
    lines = problems(folder, valid_line + '{"t": "a",\n\n[1]\n{"t": "\\ud800"}\n' + "[" * 100_000 + "\n", "rows.jsonl")
    assert [line.split("rows.jsonl: ")[1].split(" is no ")[0] for line in lines] == [
        "line 2",
        "line 4",
        "line 5",
        "line 6",
    ]
    assert "character" in lines[0] and "JSON object" in lines[1]


def test_nested_values_of_a_jsonl_are_refused_with_their_column(folder):
    rows = jsonl({"t": "a", "n": 1, "target": "x"}, {"t": "a", "n": {"b": 1}, "target": "y"})
    (line,) = problems(folder, rows, "rows.jsonl", image=None, text=["t"], table=["n"], id=None)
    assert "column 'n' holds lists, objects or bytes, first in row 2" in line


def targets(folder, values, **settings):
    rows = "".join(f"t,{value}\n" for value in values)
    return [
        record.target
        for record in read(folder, "text,target\n" + rows, image=None, text=["text"], table=[], id=None, **settings)
    ]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["3.5", "4.0"], [3.5, 4.0]),
        (["3.0", "4"], ["3", "4"]),
        ([str(number) for number in range(20)], [str(number) for number in range(20)]),
        ([str(number) for number in range(21)], [float(number) for number in range(21)]),
        (["3.5", "four"], ["3.5", "four"]),
        (["1_0.5", "2.5"], ["1_0.5", "2.5"]),
        (["-1e3", ".5"], [-1000.0, 0.5]),
    ],
)
def test_a_target_is_a_number_if_it_has_a_fraction_or_many_values(folder, values, expected):
    parsed = targets(folder, values)
    assert parsed == expected and [type(target) for target in parsed] == [type(target) for target in expected]


def test_a_configured_task_is_not_inferred(folder):
    assert targets(folder, ["1", "2"], task="number") == [1.0, 2.0]
    assert targets(folder, ["1.5", "2"], task="class") == ["1.5", "2"]
    assert targets(folder, ["02", "-1.0"], task="ordinal") == ["2", "-1"]


@pytest.mark.parametrize(("task", "message"), [("number", "no finite number"), ("ordinal", "no whole number")])
def test_targets_that_do_not_fit_the_task_are_named_with_their_rows(folder, task, message):
    lines = problems(
        folder, "text,target\nt,1\nt,two\nt,inf\nt,\nt,4\n", image=None, text=["text"], table=[], id=None, task=task
    )
    assert [line.split(": ")[1].split(",")[0] for line in lines] == ["row 2", "row 3", "row 4"]
    assert message in lines[0] and "'two'" in lines[0] and "no target" in lines[2]


def test_a_logarithm_needs_numbers_above_0(folder):
    settings = dict(image=None, text=["text"], table=[], id=None, log=True)
    lines = problems(folder, "text,target\nt,1.5\nt,0\nt,-2\n", **settings)
    assert ["row 2" in lines[0], "row 3" in lines[1], len(lines)] == [True, True, 2]
    (line,) = problems(folder, "text,target\nt,a\nt,b\n", **settings)
    assert "data.log=true needs a number" in line


def test_roles_are_inferred_if_no_columns_are_named(folder):
    rows = CSV.replace("soft and small", "soft and small and grey").replace("loud", "a loud one of four")
    expected = read(folder, rows, text=["body"], table=["price", "rooms", "new"])
    assert read(folder, rows, image=None, text=[], table=[]) == expected


def test_at_most_20_problems_are_listed_and_the_others_counted(folder):
    rows = "".join(f"{row},gone.png,t,{row % 2}\n" for row in range(25))
    lines = problems(folder, "id,photo,title,target\n" + rows, text=["title"], table=[])
    assert len(lines) == 21
    assert lines[-1] == "and 5 more problems"


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        ("../secret.png", "leads out of"),
        ("sub/../../secret.png", "leads out of"),
        ("link.png", "leads out of"),
        ("up/secret.png", "leads out of"),
        ("../gone.png", "leads out of"),
        ("/etc/passwd", "is absolute"),
        ("loop.png", ""),
        ("a" * 5000 + ".png", "not a usable path"),
        (".", "no image '.'"),
        ("https://example.org/a.png", "no image"),
    ],
)
def test_an_image_path_must_stay_in_the_folder_of_the_table(folder, cell, message):
    (folder / "link.png").symlink_to(folder.parent / "secret.png")
    (folder / "up").symlink_to(folder.parent)
    (folder / "loop.png").symlink_to(folder / "loop.png")
    (line,) = problems(folder, CSV.replace("a.png", cell))
    assert "row 1, column 'photo'" in line and message in line
    assert len(line) < 600


def test_an_absolute_image_path_is_refused_even_inside_the_folder(folder):
    (line,) = problems(folder, CSV.replace("a.png", str(folder / "a.png")))
    assert "is absolute; write it relative to" in line


def test_links_and_dots_within_the_folder_are_resolved(folder):
    (folder / "link.png").symlink_to(folder / "a.png")
    first, second, _ = read(folder, CSV.replace("a.png", "link.png").replace("b.png", "x/../b.png"))
    assert first.image == (folder / "a.png").resolve()
    assert second.image == (folder / "b.png").resolve()
