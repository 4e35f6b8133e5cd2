"""Roles of columns are inferred if the configuration names none, and are listed."""

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from project.config.schema import TableConfig
from project.data.column_inference import as_targets, column_roles, finite_number, infer_columns, infer_task
from project.data.sources.table import read_table

ADS = pd.DataFrame(
    {
        "ad_id": [11, 12, 13, 14],
        "code": ["q1", "w2", "e3", "r4"],
        "photo": ["0.png", "1.PNG", None, "gone.png"],
        "thumb": ["0.png", "1.PNG", None, None],
        "text": ["a chair of oak, hardly used", "two lamps for a desk", None, "bicycle with a new wheel and a bell"],
        "city": ["New Old Town", "New Old Town", "New Old Town", "Bay"],
        "price": ["5", "12.5", "NA", "7"],
        "year": [2001, 2002, 2003, 2004],
        "paid": [1, 2, 3, 4],
        "none": [None] * 4,
        "seller": ["a", "a", "b", "b"],
        "sold": ["yes", "no", "yes", "no"],
    }
)


@pytest.fixture
def ads(tmp_path):
    for name in ("0.png", "1.PNG"):
        Image.new("RGB", (4, 4)).save(tmp_path / name)
    ADS.to_csv(tmp_path / "ads.csv", index=False)
    return TableConfig(path=str(tmp_path / "ads.csv"), target="sold", group="seller")


def test_each_column_gets_a_role_by_its_cells(ads):
    config = infer_columns(ads)
    assert (config.image, config.text, config.table) == ("photo", ["text"], ["city", "price", "year", "paid"])
    assert (config.target, config.group, config.id) == ("sold", "seller", None)


def test_read_table_uses_the_inferred_columns(ads, tmp_path):
    ADS.drop(index=3).to_csv(tmp_path / "ads.csv", index=False)  # without the row whose image is missing
    assert read_table(ads) == read_table(infer_columns(ads))


def test_a_configuration_that_names_a_column_stays_unchanged(ads):
    ads.table = ["price"]
    assert infer_columns(ads) is ads


def test_a_parquet_gets_the_same_roles_as_the_csv(ads, tmp_path):
    ADS.assign(price=[5, 12.5, None, 7]).to_parquet(tmp_path / "ads.parquet")
    config = infer_columns(TableConfig(path=str(tmp_path / "ads.parquet"), target="sold", group="seller"))
    assert (config.image, config.text, config.table) == ("photo", ["text"], ["city", "price", "year", "paid"])


@pytest.mark.parametrize(
    ("name", "left_out"),
    [
        ("id", True),
        ("ad_id", True),
        ("PetID", True),
        ("userId", True),
        ("Unnamed: 0", True),
        ("paid", False),
        ("grid", False),
        ("idle", False),
    ],
)
def test_whole_numbers_are_ids_only_in_a_column_named_like_an_id(tmp_path, name, left_out):
    pd.DataFrame({name: [3, 1, 2], "n": [1, 1, 2], "y": list("aba")}).to_csv(tmp_path / "t.csv", index=False)
    table = infer_columns(TableConfig(path=str(tmp_path / "t.csv"), target="y")).table
    assert table == (["n"] if left_out else [name, "n"])


def test_web_addresses_and_constants_are_left_out(tmp_path):
    pd.DataFrame(
        {
            "url": ["https://a.b/c", "https://a.b/c", "http://d.e/f"],
            "same": [1, 1, 1],
            "some": [1, 1, None],
            "n": [1, 1, 2],
            "y": list("aba"),
        }
    ).to_csv(tmp_path / "t.csv", index=False)
    config = TableConfig(path=str(tmp_path / "t.csv"), target="y")
    assert infer_columns(config).table == ["some", "n"]
    assert "web addresses" in column_roles(config) and "always the same" in column_roles(config)


def test_images_outside_the_folder_do_not_count(tmp_path):
    inside = tmp_path / "rows"
    inside.mkdir()
    for index in range(2):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{index}.png")
    pd.DataFrame({"p": ["../0.png", "../1.png"], "q": [f"{tmp_path}/0.png"] * 2, "y": list("ab")}).to_csv(
        inside / "t.csv", index=False
    )
    assert infer_columns(TableConfig(path=str(inside / "t.csv"), target="y")).image is None


def test_nested_values_get_no_role(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"n": {"a": 1}, "m": 2, "y": "a"}\n{"n": 1, "m": 3, "y": "b"}\n')
    config = TableConfig(path=str(tmp_path / "t.jsonl"), target="y")
    assert infer_columns(config).table == ["m"]
    assert "holds lists or objects" in column_roles(config)


def test_column_roles_has_one_line_per_column(ads):
    lines = {line.split("  ")[0]: line for line in column_roles(ads).splitlines()}
    assert list(lines) == ["column", *ADS.columns]
    assert "not used: row id" in lines["ad_id"] and "whole number" in lines["ad_id"]
    assert "image file" in lines["photo"] and "25%" in lines["photo"] and "0.png" in lines["photo"]
    assert "not used: a second image" in lines["thumb"]
    assert "always missing" in lines["none"] and "100%" in lines["none"]
    assert " group " in lines["seller"] and " target " in lines["sold"]
    assert " number " in lines["price"]


def test_named_columns_keep_their_roles(ads):
    ads.text = ["city"]
    lines = {line.split("  ")[0]: line for line in column_roles(ads).splitlines()}
    assert " text " in lines["city"] and "not used " in lines["text"]


def test_an_example_is_short_and_has_no_control_characters(tmp_path):
    pd.DataFrame({"t": ["\x1b[2J" + "a long text " * 20, "b c d"], "y": list("ab")}).to_csv(tmp_path / "t.csv")
    roles = column_roles(TableConfig(path=str(tmp_path / "t.csv"), target="y"))
    assert "\x1b" not in roles and max(map(len, roles.splitlines())) < 120


@given(st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1))
def test_a_number_is_parsed_from_its_repr(values):
    assert [finite_number(repr(value)) for value in values] == values == as_targets(values, "number")


@given(st.lists(st.integers(-99, 99), min_size=1))
def test_whole_numbers_with_and_without_a_point_are_one_class(values):
    cells = [f"{value}.0" if value % 2 else str(value) for value in values]
    assert as_targets(cells, "class") == [str(value) for value in values] == as_targets(cells, "ordinal")
    assert infer_task(cells, "auto") == ("number" if len(set(values)) > 20 else "class")
