"""A new modality needs a field of Record, a line in REGISTRY and its own files, nothing else."""

import shutil
import subprocess
import sys
from pathlib import Path

from project.data import record
from project.pipeline import modalities

SCRIPT = """
import numpy as np
from project.pipeline.corrupt import corrupt
from project.pipeline.describe import describe
from project.llm.store.store import Store
from project.data.record import Record
from project.corruption.conditions import Condition, noisy, evaluation_conditions
from project.evaluation.results import conditions_of
from project.config.schema import ExpertsConfig, RobustnessConfig
from project.cli.show import format_record

row = Record("a", "a", text="a bird", sound=(1.0, 2.0, 3.0))
print(describe([row], ExpertsConfig(), Store("store")))
print(describe([corrupt(row, noisy(("sound",), 1.0, 1))], ExpertsConfig(), Store("store")))
print(corrupt(row, Condition("missing", ("sound",))).present, format_record(row))
print([str(condition) for condition in evaluation_conditions(RobustnessConfig([0.5], orders=1), ("text", "sound"))])
"""


def test_every_modality_is_registered():
    assert tuple(modalities.REGISTRY) == record.MODALITIES


def test_a_fourth_modality_needs_a_field_a_line_and_two_files(tmp_path):
    package = Path(modalities.__file__).parents[1]
    shutil.copytree(package, tmp_path / "project", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(package.parent / "conf", tmp_path / "conf")

    def edit(name, before, after):
        text = (tmp_path / "project" / name).read_text()
        assert before in text
        (tmp_path / "project" / name).write_text(text.replace(before, after, 1))

    edit("data/record.py", '"table")', '"table", "sound")')
    edit("data/record.py", "    target: str", "    sound: tuple[float, ...] | None = None\n    target: str")
    edit(
        "pipeline/modalities.py",
        "REGISTRY = {",
        "from ..corruption.sound import silence\nfrom ..experts.sound import heard\n"
        'REGISTRY = {\n    "sound": Modality(silence, "share that is silent", _one_by_one(heard), str),',
    )
    (tmp_path / "project/corruption/sound.py").write_text(
        "def silence(sound, level, rng):\n    return tuple(value * (1 - level) for value in sound)\n"
    )
    (tmp_path / "project/experts/sound.py").write_text(
        'def heard(sound, config):\n    return "It is loud." if max(sound) > 1 else "It is quiet."\n'
    )
    done = subprocess.run([sys.executable, "-c", SCRIPT], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[(('text', 'a bird'), ('sound', 'It is loud.'))]",
        "[(('text', 'a bird'), ('sound', 'It is quiet.'))]",
        "('text',) text: a bird",
        "sound: (1.0, 2.0, 3.0)",
        "['clean', 'noisy(text, 0.5)', 'noisy(sound, 0.5)', 'noisy(all, 0.5)', 'missing(text)', 'missing(sound)', "
        "'missing(text, sound)', 'order(sound, text)']",
    ]
