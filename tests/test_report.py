"""The report on synthetic run folders: numbers, pairing, escaping, and a page that stands alone."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from project.errors import UserError
from project.report import build_report, number_text, print_table, run, sentences
from project.robustness.comparison import compare, load_runs
from project.robustness.conditions import test_conditions as conditions_of_the_test
from project.robustness.results import results_table
from project.schema import Config, Robustness
from project.target import Target

CLASSES = ["<script>alert(1)</script>", "b & c", "plain"]


def make_run(experiment, name="plain", seed=0, slope=0.6, rows=40, bare=False, natural=(), lacking=False, **info):
    """A finished run whose accuracy falls from 0.9 by `slope` at noise level 1; it is drawn with common numbers.

    `natural` are the realistic damages that it was tested under; `lacking` leaves its first ten rows without an image.
    """
    shared = np.random.default_rng(0)
    found = []
    tested = Robustness(levels=[0.1, 0.5, 0.9], natural=list(natural), natural_levels=[0.3, 0.6])
    for condition in conditions_of_the_test(tested):
        luck = shared.random(rows) + np.random.default_rng(seed + 1).normal(0, 0.02, rows)
        share = 0.9 - slope * (condition.level if condition.kind in ("noisy", "missing", "natural") else 0)
        for index in range(rows):
            target = CLASSES[index % 3]
            prediction = target if luck[index] < share else CLASSES[(index + 1) % 3]
            found.append(
                {
                    "record": f"r{index:03d}",
                    "group": f"g{index}",
                    "present": "text,table" if lacking and index < 10 else "image,text,table",
                    "condition": str(condition),
                    "kind": condition.kind,
                    "corruption": condition.corruption,
                    "modality": condition.modality,
                    "level": condition.level,
                    "order": ",".join(condition.order),
                    "target": target,
                    "prediction": prediction,
                    "probabilities": [0.8 if prediction == label else 0.1 for label in CLASSES],
                }
            )
    about = {"method": info.pop("method", name), "name": name, "data": "toys", "seed": seed}
    if not bare:
        about |= {
            "classes": CLASSES,
            "constant": CLASSES[0],
            "metric": "accuracy",
            "perturbation": "none",
            "rows": {"train": 120, "val": 20, "test": rows},
            "forward_samples": 2400,
            "steps": 150,
            "seconds": {"train": 61.2, "evaluate": 12},
            "llm": {
                "model": "tiny <b>model</b>",
                "calls": 310,
                "hits": 1200,
                "prompt_tokens": 45678,
                "completion_tokens": 9876,
                "seconds": 401.5,
                "fallbacks": 3,
                "texts": 1510,
            },
            "versions": {"torch": "2.9", "lightning": "2.6"},
            "hardware": "2 cores",
            "wandb": "offline-run-1",
            "empty_texts": {"clean": 0.0, "noisy(text, 0.5)": 0.1},
            "val": {"score": 0.8, "drop_ratio": 0.12},
        }
    about |= info
    folder = experiment / name / f"seed-{seed}"
    folder.mkdir(parents=True)
    predictions = pd.DataFrame(found)
    predictions.to_parquet(folder / "predictions.parquet")
    results_table(
        predictions,
        method=about["method"],
        data=about["data"],
        seed=seed,
        target=Target("class", CLASSES[0], tuple(CLASSES)),
        resamples=50,
    ).to_parquet(folder / "results.parquet")
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    return folder


def test_the_page_stands_alone_and_escapes_what_it_is_given(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "study", seed=seed)
        make_run(tmp_path / "study", name="$x$ & <img src=x>", seed=seed, slope=0.3, perturbation="rules")
    page = build_report(tmp_path / "study", resamples=100)
    html = page.read_text(encoding="utf-8")
    assert page == tmp_path / "study" / "report" / "index.html"
    assert sorted(path.name for path in page.parent.iterdir()) == ["accuracy-1.png", "drop-1.png", "index.html"]
    assert "<script" not in html and "<img src=x" not in html and "<b>model" not in html
    assert "tiny &lt;b&gt;model" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http" not in html
    for text in ("Primary endpoint", "chance", "45,678", "3 of 1510", "noisy(text, 0.5): 10.0%", "2,400", "◐", "●"):
        assert text in html


def test_a_run_json_with_the_least_keys_is_enough(tmp_path):
    make_run(tmp_path / "study", bare=True)
    html = build_report(tmp_path / "study", resamples=50).read_text(encoding="utf-8")
    assert "Seen and unseen" not in html and "Cost" in html


def test_two_data_sets_make_two_sections(tmp_path):
    make_run(tmp_path / "study")
    make_run(tmp_path / "study", name="plain-2", data="other")
    page = build_report(tmp_path / "study", resamples=50)
    assert page.read_text(encoding="utf-8").count("<h2>") == 2
    assert len(list(page.parent.glob("*.png"))) == 4


def test_numbers_are_those_of_the_predictions(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, name="ours", seed=seed, slope=0.2)
    folder = make_run(tmp_path)
    comparison = compare(load_runs(tmp_path), 200)
    assert comparison.methods == ["plain", "ours"] and comparison.reference == "plain"
    results = pd.read_parquet(folder / "results.parquet").query("metric == 'drop_ratio' and modality == 'all'")
    drop = comparison.drop("plain", ["noisy(all, 0.5)"])
    assert drop.value == pytest.approx(results[results.level == 0.5]["value"].item())
    own = comparison.value("ours", ["clean"])
    assert own.value == pytest.approx(np.mean(own.seeds)) and len(own.seeds) == 2
    names = comparison.select("missing")
    mean = np.mean([comparison.drop("ours", [name]).value for name in names])
    assert comparison.drop("ours", names).value == pytest.approx(mean)


def test_a_better_method_is_said_to_be_better_and_an_equal_one_is_not(tmp_path):
    make_run(tmp_path, rows=200)
    make_run(tmp_path, name="better", rows=200, slope=0.0)
    make_run(tmp_path, name="worse", rows=200, slope=0.9)
    make_run(tmp_path, name="twin", rows=200)
    text = " ".join(sentences(compare(load_runs(tmp_path), 300)))
    assert re.search(r"better has [^;]*; [^;]*lies below 0: it loses less than plain", text)
    assert re.search(r"worse has [^;]*; [^;]*lies above 0: it loses more than plain", text)
    assert re.search(r"twin has [^;]*; [^;]*contains 0, so no difference from plain is shown", text)


def test_realistic_damage_and_rows_with_gaps_have_their_places(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "study", seed=seed, natural=["typing", "blur"], lacking=True)
        make_run(tmp_path / "study", name="ours", seed=seed, natural=["typing", "blur"], lacking=True, slope=0.2)
    html = build_report(tmp_path / "study", resamples=50).read_text(encoding="utf-8")
    for text in ("realistic damage to text", "typing, level 0.3", "Rows that really lack a modality",
                 "typing (probability that a word has a typing error)", "<td>noise, text</td>", "<td>blur</td>"):
        assert text in html
    comparison = compare(load_runs(tmp_path / "study"), 200)
    assert [(presence.missing, presence.rows) for presence in comparison.genuine] == [("none", 30), ("image", 10)]
    results = pd.concat([run.results for run in load_runs(tmp_path / "study") if run.info["name"] == "ours"])
    for presence in comparison.genuine:
        own = presence.scores["ours"]
        told = results[(results.condition == "genuine") & (results.modality == presence.missing)]["value"]
        assert sorted(own.seeds) == sorted(told) and own.low <= own.value <= own.high
    assert comparison.exposure("ours", "natural(blur, 0.3)") == "unseen"


def test_rows_that_a_run_lacks_are_left_out_of_all(tmp_path):
    make_run(tmp_path, rows=40)
    make_run(tmp_path, name="ours", rows=30)
    comparison = compare(load_runs(tmp_path), 50)
    assert (comparison.rows, comparison.rows_left_out) == (30, 10)


def test_the_terminal_table_is_at_most_100_columns_wide(tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, name="instructions-described-1f3a9c", slope=0.3)
    console = Console(width=140, file=io.StringIO())
    print_table(compare(load_runs(tmp_path), 50), console)
    table = console.file.getvalue().split("Primary endpoint")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 100
    assert "…" not in table and "noise 0.5" in table


def test_the_verb_prints_the_paths(tmp_path, capsys):
    make_run(tmp_path / "study")
    run(Config(experiment="study", output=str(tmp_path), robustness=Robustness(resamples=50)), {})
    assert str(tmp_path / "study" / "report" / "index.html") in capsys.readouterr().out


def test_mistakes_are_one_clear_line(tmp_path):
    with pytest.raises(UserError, match="python -m project train experiment=absent"):
        build_report(tmp_path / "absent")
    folder = make_run(tmp_path / "study")
    (folder / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="run.json is damaged"):
        build_report(tmp_path / "study")
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        build_report(tmp_path / "study")


def test_numbers_read_well():
    assert [number_text(value) for value in (-0.5, float("nan"), float("inf"))] == ["−0.500", "–", "not reached"]
