"""What the experts' words keep of the label: planted losses are found, and what stays itself loses nothing."""

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
from project.pipeline.text_log import COLUMNS

COLOURS = {"A": (220, 30, 30), "B": (30, 60, 220), "C": (30, 200, 60)}
SAID = {"A": "a red apple", "B": "a blue boat", "C": "a green cup"}
PRICES = {"A": 1, "B": 50, "C": 900}


def picture(target, index):
    """One of three plain colours, each a little different."""
    shade = np.array(COLOURS[target]) + index % 7 - 3
    return Image.fromarray(np.broadcast_to(shade.astype(np.uint8), (32, 32, 3)).copy())


def planted(words):
    """Rows whose picture, text and price each tell the class, and their texts as `words` describes them."""

    def record(part, index):
        target = "ABC"[index % 3]
        return Record(
            f"{part}{index:02d}",
            f"{part}{index}",
            picture(target, index),
            f"{SAID[target]} {index % 5}",
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
                "described": json.dumps(words(row)),
                "table": None,
                "aligned": "{}",
                "read": "",
                "instruction": None,
                "fallback": None,
            }
            for split, rows in (("train", train), ("test", test))
            for row in rows
        ],
        columns=COLUMNS,
    ).astype({"round": "Int64"})
    return texts, Rows(train, [], test, Target("class", "A", ("A", "B", "C")), ("image", "text", "table"))


def told(table):
    return table.pivot(index="modality", columns="measure", values="value")


def test_words_that_all_pictures_share_lose_what_the_pictures_tell():
    texts, rows = planted(
        lambda row: {"image": "It is a picture.", "text": row.text, "table": f"The price is {row.table['price']}."}
    )
    table = transformation_table(texts, rows, 200)
    found = told(table)
    assert found["raw"]["image"] == found["raw"]["table"] == found["raw"]["text"] == 1
    assert found["described"]["image"] <= 0.4  # a blind reader answers one of three classes
    assert found["lost"]["image"] == pytest.approx(1 - found["described"]["image"])
    low = table[(table["modality"] == "image") & (table["measure"] == "lost")]["low"].item()
    assert low > 0.3


def test_a_text_that_stays_itself_loses_nothing():
    texts, rows = planted(lambda row: {"text": row.text})
    lost = transformation_table(texts, rows, 200).query("modality == 'text' and measure == 'lost'")
    assert lost[["value", "low", "high"]].to_numpy().tolist() == [[0, 0, 0]]


def test_a_modality_without_a_description_tells_nothing_and_does_not_fail():
    texts, rows = planted(lambda row: {"text": row.text})
    assert told(transformation_table(texts, rows, 50))["described"]["table"] <= 0.4


def test_numbers_are_read_too():
    texts, rows = planted(lambda row: {"text": row.text, "table": "some price"})
    prices = {row.id: float(row.table["price"]) for row in (*rows.train, *rows.test)}
    texts["target"] = texts["record"].map(prices)
    rows = Rows(rows.train, [], rows.test, Target("number", 50.0), rows.modalities)
    found = told(transformation_table(texts, rows, 50))
    assert found["raw"]["table"] < found["described"]["table"]  # an error: lower is better
    assert found["lost"]["table"] == pytest.approx(found["described"]["table"] - found["raw"]["table"])


def test_other_rows_than_those_of_the_texts_are_refused():
    texts, rows = planted(lambda row: {"text": row.text})
    with pytest.raises(UserError, match="not those that the run was made with"):
        transformation_table(texts, Rows(rows.train[1:], [], rows.test, rows.target, rows.modalities), 50)
