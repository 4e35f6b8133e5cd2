"""The data card has plain facts on the rows, and none of their contents."""

import hashlib

import pandas as pd
import pytest

from project.config.schema import EmojiConfig, SplitConfig, TableConfig
from project.data.dataset_card import MAX_LISTED_CLASSES, dataset_card, facts
from project.data.near_duplicates import near_copies
from project.data.record import Record
from project.data.rows import Rows, select_rows
from project.data.target import Target


def rows(targets, target=None, **splits):
    """Return rows with one training row per target, with texts of 1, 2, 3, ... words, and no table."""
    train = [
        Record(str(index), f"g{index // 2}", None, " ".join(["word"] * (index + 1)), None, value)
        for index, value in enumerate(targets)
    ]
    classes = tuple(sorted(set(targets)))
    return Rows(
        train, splits.get("val", []), splits.get("test", []), target or Target("class", classes[0], classes), ("text",)
    )


def lines(rows, title):
    return next(table.lines for table in facts(rows) if table.title.startswith(title))


@pytest.fixture
def table(tmp_path):
    frame = pd.DataFrame(
        {
            "body": [f"SECRET words number {index}" for index in range(40)],
            "price": [f"FEE{index}" for index in range(40)],
            "kind": ["big | <b>bad", "small"] * 20,
            "owner": [f"PERSON{index // 2}" for index in range(40)],
        }
    )
    frame.to_csv(tmp_path / "ads.csv", index=False)
    return TableConfig(
        name="ads",
        path=str(tmp_path / "ads.csv"),
        question="Which kind?",
        text=["body"],
        table=["price"],
        target="kind",
        group="owner",
        split=SplitConfig(seed=3, max_test=2),
    )


def card_of(config):
    split = select_rows(config)
    return dataset_card(split, config, near_copies(split))


def test_the_card_names_the_file_by_its_digest_and_never_its_folder(table):
    text = card_of(table)
    digest = hashlib.sha256(open(table.path, "rb").read()).hexdigest()
    assert f"- File: ads.csv, sha256 {digest}" in text
    assert table.path not in text and table.path.rsplit("/", 2)[1] not in text


def test_the_card_has_no_content_of_a_row_except_its_class(table):
    text = card_of(table)
    assert text.startswith("# ads\n")
    assert not any(word in text for word in ("SECRET", "PERSON", "FEE"))
    assert "| big \\| &lt;b>bad |" in text


def test_the_card_has_the_rule_the_seed_and_the_caps_of_the_split(table):
    text = card_of(table)
    assert "the seed 3; val 0.15, test 0.25" in text and "Selected: at most 2 test rows" in text


def test_the_card_has_source_and_terms_of_a_known_data_set(monkeypatch):
    from project.data.sources import emoji

    for name, value in (("TITLE", "Emoji, drawn"), ("SOURCE", "packages"), ("TERMS", "CC BY-SA")):
        monkeypatch.setattr(emoji, name, value, raising=False)
    split = rows(["x", "y"])
    text = dataset_card(split, EmojiConfig(name="emoji", question="Which?"), near_copies(split))
    assert text.startswith("# Emoji, drawn\n\n- Source: packages\n- Terms: CC BY-SA\n- Target: a class. Which?")


def test_rows_groups_and_missing_modalities_are_counted_by_split():
    split = rows(["x", "y", "x"], val=[Record("v", "v", None, None, {"a": "1"}, "x")])
    assert lines(split, "Rows") == [("train", "3", "2"), ("val", "1", "1"), ("test", "0", "0")]
    assert lines(split, "Missing") == [
        ("train", "100.0%", "0.0%", "100.0%"),
        ("val", "100.0%", "100.0%", "0.0%"),
        ("test", "-", "-", "-"),
    ]


def test_classes_are_counted_by_split_including_those_without_training_rows():
    split = rows(["x", "x", "x", "y"], test=[Record("t", "t", None, "a", None, "z")])
    assert lines(split, "Classes") == [
        ("x", "3 (75.0%)", "0 (-)", "0 (0.0%)"),
        ("y", "1 (25.0%)", "0 (-)", "0 (0.0%)"),
        ("z", "0 (0.0%)", "0 (-)", "1 (100.0%)"),
    ]


def test_only_the_most_frequent_of_many_classes_are_listed():
    classes = lines(rows([f"c{index}" for index in range(MAX_LISTED_CLASSES + 5)] + ["c54"]), "Classes")
    assert classes[0][0] == "c54" and len(classes) == MAX_LISTED_CLASSES + 1
    assert classes[-1] == ("and 5 more classes", "5", "0", "0")


def test_a_numeric_target_is_described_by_its_quantiles():
    target = Target("number", 1.0, log=True)
    split = rows([float(value) for value in range(101)], target)
    assert lines(split, "Quantiles")[0] == ("train", "0", "5", "25", "50", "75", "95", "100")
    assert lines(split, "Quantiles")[1][1:] == ("-",) * 7
    prices = rows([0.00123456, 12.345678, 1234567.8], target)
    assert lines(prices, "Quantiles")[0][::4] == ("train", "12.35") and lines(prices, "Quantiles")[0][-1] == "1,234,568"
    text = dataset_card(split, TableConfig(name="n", question="How much?"), near_copies(split))
    assert "a number, learned as its logarithm. How much?" in text


def test_the_words_of_the_texts_are_counted():
    assert lines(rows(["x", "y"] * 10 + ["x"]), "Words per text")[0] == ("train", "11", "20")
