"""Rows whose class depends on a single modality."""

import random

import numpy as np
import pandas as pd
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def planted_files(tmp_path_factory):
    """A CSV for each modality that determines the class: 192 rows in two classes; other modalities are random."""
    folder = tmp_path_factory.mktemp("planted")
    colours = {"red": (230, 20, 20), "blue": (20, 20, 230)}
    for colour, value in colours.items():
        for index in range(8):
            noise = np.random.default_rng(index).integers(-20, 21, (16, 16, 3))
            pixels = (np.array(value) + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{colour}{index}.png")
    files = {}
    for signal in ("image", "text", "table"):
        draw = random.Random(signal)
        rows = []
        for index in range(192):
            kind = index % 2
            values = {name: kind if name == signal else draw.randint(0, 1) for name in ("image", "text", "table")}
            rows.append(
                {
                    "photo": f"{list(colours)[values['image']]}{index % 8}.png",
                    "title": f"a {('small', 'large')[values['text']]} round thing",
                    "price": 2 + 5 * values["table"] + draw.randint(0, 2),
                    "city": draw.choice("AB"),
                    "kind": ("apple", "plum")[kind],
                }
            )
        files[signal] = folder / f"{signal}.csv"
        pd.DataFrame(rows).to_csv(files[signal], index=False)
    return files


@pytest.fixture
def planted(planted_files, tiny_args):
    """Arguments of a run on rows whose class depends on the modality `signal` alone."""

    def args(signal):
        other_args = [arg for arg in tiny_args if not arg.startswith(("data.path", "data.group"))]
        return [*other_args, f"data.path={planted_files[signal]}"]

    return args
