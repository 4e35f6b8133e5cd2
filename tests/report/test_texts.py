"""The section on texts: choice of records and runs, and escaping of hostile texts."""

import json
from dataclasses import replace

import pandas as pd
import pytest

import project.analysis.analyse
from project.cli.analyse import run as analyse
from project.cli.report import run as report
from project.cli.train import run as train
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.data.rows import read_rows
from project.errors import UserError
from project.evaluation.comparison import compare
from project.evaluation.run_info import RunInfo
from project.evaluation.run_loading import Run
from project.pipeline.text_log import text_table
from project.report.texts import corrupted_cards, example_condition, perturbed_cards, texts

HOSTILE = "<script>alert('x')</script> & <img src=x onerror=y> {{ 7 * 7 }}"
NOISE = "noisy(all, 0.5)"


def text_row(condition, record, described, aligned, round=None, split="test", read="", **columns):
    return {
        "split": split,
        "condition": condition,
        "round": round,
        "record": record,
        "group": record,
        "target": "A",
        "described": json.dumps(described),
        "table": None,
        "aligned": json.dumps(aligned),
        "read": read or aligned["summary"],
        "instruction": None,
        "fallback": None,
        **columns,
    }


def run_with_texts(folder, answers, name="ours", seed=0):
    """Return a run with texts; `answers` maps a record with target A to its clean and its noisy prediction."""
    predictions = pd.DataFrame(
        [
            {
                "record": record,
                "group": record,
                "present": "image,text,table",
                "condition": condition,
                "kind": kind,
                "corruption": "",
                "modality": modality,
                "level": level,
                "order": "image,text,table",
                "target": "A",
                "prediction": answer,
                "probabilities": None,
            }
            for record, pair in answers.items()
            for (condition, kind, modality, level), answer in zip(
                [("clean", "clean", "none", 0.0), (NOISE, "noisy", "all", 0.5)], pair, strict=True
            )
        ]
    )
    rows = []
    for record in answers:
        rows.append(text_row("clean", record, {"text": f"{HOSTILE} red hammer"}, {"summary": "A red hammer."}))
        rows.append(text_row(NOISE, record, {"text": "red"}, {"summary": f"A red {HOSTILE}"}))
    for index in range(4):
        rows.append(text_row("clean", f"{HOSTILE}{index}", {"text": "a saw"}, {"summary": "A saw."}, split="train"))
        rows.append(
            text_row(
                "clean",
                f"{HOSTILE}{index}",
                {"text": "a saw"},
                {"summary": "A saw."},
                0,
                "train",
                read=f"A {HOSTILE}",
                instruction=["noise"],
                fallback=[True],
            )
        )
    folder.mkdir(parents=True)
    text_table(rows).to_parquet(folder / "texts.parquet")
    return Run(
        folder,
        RunInfo(method=name, name=name, data="toys", seed=seed, metric="accuracy"),
        predictions,
        pd.DataFrame(),
    )


ANSWERS = {"r1": "AA", "r2": "AB", "r3": "BA", "r4": "AB", "r5": "AB", "r6": "BB"}


def test_cards_prefer_records_whose_prediction_changed(tmp_path):
    run = run_with_texts(tmp_path / "a", ANSWERS)
    texts = pd.read_parquet(run.folder / "texts.parquet")
    assert example_condition(run, texts) == NOISE
    cards = corrupted_cards(run, texts, NOISE)
    assert [(card["record"], card["outcome"]) for card in cards] == [
        ("r2", "worse"),
        ("r4", "worse"),
        ("r3", "better"),
        ("r1", "unchanged"),
    ]
    columns = dict(cards[0]["columns"])
    assert ("text", [("delete", HOSTILE), ("equal", "red"), ("delete", "hammer")]) in columns["described, corrupted"]


def test_cards_of_a_numeric_target_follow_the_error(tmp_path):
    run = run_with_texts(tmp_path / "a", ANSWERS)
    run = replace(run, info=replace(run.info, metric="rmse"))
    run.predictions["target"] = 2.0
    run.predictions["prediction"] = run.predictions["prediction"].map({"A": 2.0, "B": 5.0})
    texts = pd.read_parquet(run.folder / "texts.parquet").assign(target=2.0)
    cards = corrupted_cards(run, texts, NOISE)
    assert [card["record"] for card in cards] == ["r2", "r4", "r3", "r1"]
    assert (cards[0]["clean"], cards[0]["corrupted"]) == ("2", "5")


def test_training_cards_have_the_instruction_and_the_fallback(tmp_path):
    run = run_with_texts(tmp_path / "a", ANSWERS)
    cards = perturbed_cards(pd.read_parquet(run.folder / "texts.parquet"))
    assert len(cards) == 3 and cards[0]["instruction"] == "noise (fallback: the rules)"


def test_the_first_seed_with_texts_represents_a_method(tmp_path):
    runs = [run_with_texts(tmp_path / str(seed), ANSWERS, seed=seed) for seed in (1, 0)]
    (tmp_path / "0" / "texts.parquet").rename(tmp_path / "0" / "renamed")
    section = texts(compare(runs, 10))
    assert section.values["example_method"] == "ours" and section.values["collapse"] == []
    assert section.values["condition"] == "noise 0.5 on all modalities"
    (tmp_path / "1" / "texts.parquet").unlink()
    assert texts(compare(runs, 10)) is None


def test_a_trained_run_is_measured_and_hostile_texts_are_escaped(tiny_args, table_file, tmp_path, capsys, monkeypatch):
    rows = pd.read_csv(table_file)
    rows["title"] = [f"{HOSTILE} {title}" for title in rows["title"]]
    hostile = table_file.parent / "hostile.csv"
    rows.to_csv(hostile, index=False)
    args = [*tiny_args, f"data.path={hostile}", "trainer.epochs=1", "robustness.missing=none", "model.max_tokens=64"]
    for method in ("plain", "rules"):
        config = load_config([*args, f"method={method}"])
        train(config, {})
    experiment = run_folder(config).parent.parent
    report(config, {})
    page = experiment / "report" / "index.html"
    before = page.read_text(encoding="utf-8")
    assert "python -m project analyse" in before and "Example records" in before

    readings = []
    monkeypatch.setattr(project.analysis.analyse, "read_rows", lambda data: readings.append(data) or read_rows(data))
    analyse(config, {})
    assert len(readings) == 1  # shared by both runs, whose data and descriptions are equal
    tables = {
        name: pd.read_parquet(run_folder(config) / f"{name}.parquet")
        for name in ("transformation", "collapse", "recovery", "diversity")
    }
    assert set(tables["transformation"]["modality"]) == {"image", "text", "table"}
    assert set(tables["collapse"]["arrow"]) == {"described", "aligned", "perturbed"}
    assert (tables["recovery"].query("measure == 'outside'")["count"] == 0).all()  # the run does not align texts
    assert not (run_folder(load_config([*args, "method=plain"])) / "diversity.parquet").exists()
    report(config, {})
    html = page.read_text(encoding="utf-8")
    for text in ("Information loss of the experts", "effective rank", "distinct-2", "<del>", "Training record"):
        assert text in html, text
    for text in (before, html):
        assert "<script" not in text and "<img src=x" not in text
        assert "&lt;script&gt;" in text and "{{ 7 * 7 }}" in text

    capsys.readouterr()
    analyse(config, {"words": [str(experiment / "plain*" / "seed-*")]})
    assert "seed-0/collapse.parquet" in capsys.readouterr().out
    hostile.rename(hostile.with_suffix(".moved"))
    analyse(config, {"words": [str(experiment / "plain*" / "seed-*")]})
    output = capsys.readouterr().out
    assert "the information loss of the experts is not measured" in output and "seed-0/collapse.parquet" in output
    with pytest.raises(UserError, match="no run folder with texts.parquet matches"):
        analyse(config, {"words": [str(experiment / "absent*")]})


def test_analyse_needs_a_model_with_an_encoder(tiny_args, tmp_path):
    config = load_config(tiny_args)
    config.model = type("Other", (), {"kind": "other"})()
    with pytest.raises(UserError, match="model=minilm"):
        analyse(config, {})


def test_analyse_needs_a_finished_run(tiny_args):
    config = load_config([*tiny_args, "experiment=default"])
    with pytest.raises(UserError, match="no finished run"):
        analyse(config, {})
