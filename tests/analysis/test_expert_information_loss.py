"""Information loss of the experts: known losses are measured, and an unchanged text loses nothing."""

import json

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from project.analysis.expert_information_loss import transformation_table
from project.data.record import Record
from project.data.rows import Rows
from project.data.target import Target
from project.errors import UserError
from project.pipeline.text_log import TEXT_COLUMNS

COLOURS = {"A": (220, 30, 30), "B": (30, 60, 220), "C": (30, 200, 60)}
WORDS = {"A": "a red apple", "B": "a blue boat", "C": "a green cup"}
PRICES = {"A": 1, "B": 50, "C": 900}


def picture(target, index):
    """Return an image of the class's colour, in slightly different shades."""
    shade = np.array(COLOURS[target]) + index % 7 - 3
    return Image.fromarray(np.broadcast_to(shade.astype(np.uint8), (32, 32, 3)).copy())


def texts_and_rows(describe):
    """Return texts.parquet with the descriptions of `describe`, and rows whose image, text and price give the class."""

    def record(part, index):
        target = "ABC"[index % 3]
        return Record(
            f"{part}{index:02d}",
            f"{part}{index}",
            picture(target, index),
            f"{WORDS[target]} {index % 5}",
            {"price": PRICES[target] + index % 3},
            target,
        )

    train, test = ([record(part, index) for index in range(count)] for part, count in (("r", 24), ("t", 18)))
    texts = pd.DataFrame(
        [
            {
                "split": split,
                "condition": "clean",
                "round": None,
                "record": row.id,
                "group": row.group,
                "target": row.target,
                "described": json.dumps(describe(row)),
                "table": None,
                "aligned": "{}",
                "read": "",
                "instruction": None,
                "fallback": None,
            }
            for split, rows in (("train", train), ("test", test))
            for row in rows
        ],
        columns=TEXT_COLUMNS,
    ).astype({"round": "Int64"})
    return texts, Rows(train, [], test, Target("class", "A", ("A", "B", "C")), ("image", "text", "table"))


def by_modality(table):
    return table.pivot(index="modality", columns="measure", values="value")


def test_a_constant_image_description_loses_the_label():
    texts, rows = texts_and_rows(
        lambda row: {"image": "It is a picture.", "text": row.text, "table": f"The price is {row.table['price']}."}
    )
    table = transformation_table(texts, rows, 200)
    values = by_modality(table)
    assert values["raw"]["image"] == values["raw"]["table"] == values["raw"]["text"] == 1
    assert values["described"]["image"] <= 0.4  # chance for three classes
    assert values["lost"]["image"] == pytest.approx(1 - values["described"]["image"])
    low = table[(table["modality"] == "image") & (table["measure"] == "lost")]["low"].item()
    assert low > 0.3


def test_an_unchanged_text_loses_nothing():
    texts, rows = texts_and_rows(lambda row: {"text": row.text})
    lost = transformation_table(texts, rows, 200).query("modality == 'text' and measure == 'lost'")
    assert lost[["value", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_a_modality_without_a_description_scores_at_chance():
    texts, rows = texts_and_rows(lambda row: {"text": row.text})
    assert by_modality(transformation_table(texts, rows, 50))["described"]["table"] <= 0.4


def test_numeric_targets_are_scored_by_their_error():
    texts, rows = texts_and_rows(lambda row: {"text": row.text, "table": "some price"})
    prices = {row.id: float(row.table["price"]) for row in (*rows.train, *rows.test)}
    texts["target"] = texts["record"].map(prices)
    rows = Rows(rows.train, [], rows.test, Target("number", 50.0), rows.modalities)
    values = by_modality(transformation_table(texts, rows, 50))
    assert values["raw"]["table"] < values["described"]["table"]  # an error: lower is better
    assert values["lost"]["table"] == pytest.approx(values["described"]["table"] - values["raw"]["table"])


def test_rows_that_lack_a_record_of_the_texts_are_an_error():
    texts, rows = texts_and_rows(lambda row: {"text": row.text})
    with pytest.raises(UserError, match="the data are not those of the run: records of texts.parquet are missing"):
        transformation_table(texts, Rows(rows.train[1:], [], rows.test, rows.target, rows.modalities), 50)
