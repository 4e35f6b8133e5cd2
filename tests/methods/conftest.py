"""Rows of which one modality alone tells the class."""

import random

import numpy as np
import pandas as pd
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def planted_files(tmp_path_factory):
    """A CSV for each modality that may tell the class: 192 rows in two classes; the others' values are chance."""
    folder = tmp_path_factory.mktemp("planted")
    colours = {"red": (230, 20, 20), "blue": (20, 20, 230)}
    for colour, value in colours.items():
        for index in range(8):
            noise = np.random.default_rng(index).integers(-20, 21, (16, 16, 3))
            shown = (np.array(value) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(shown).save(folder / f"{colour}{index}.png")
    files = {}
    for signal in ("image", "text", "table"):
        draw = random.Random(signal)
        rows = []
        for index in range(192):
            kind = index % 2
            told = {name: kind if name == signal else draw.randint(0, 1) for name in ("image", "text", "table")}
            rows.append(
                {
                    "photo": f"{list(colours)[told['image']]}{index % 8}.png",
                    "title": f"a {('small', 'large')[told['text']]} round thing",
                    "price": 2 + 5 * told["table"] + draw.randint(0, 2),
                    "city": draw.choice("AB"),
                    "kind": ("apple", "plum")[kind],
                }
            )
        files[signal] = folder / f"{signal}.csv"
        pd.DataFrame(rows).to_csv(files[signal], index=False)
    return files


@pytest.fixture
def planted(planted_files, tiny_args):
    """Arguments of a run on rows of which one modality alone tells the class."""

    def args(signal):
        kept = [arg for arg in tiny_args if not arg.startswith(("data.path", "data.group"))]
        return [*kept, f"data.path={planted_files[signal]}"]

    return args
