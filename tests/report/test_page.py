"""The report on synthetic run folders: numbers, pairing, escaping, and a page that stands alone."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from project.cli.main import main
from project.cli.report import run
from project.config.schema import Config, RobustnessConfig
from project.corruption.conditions import evaluation_conditions
from project.data.target import Target
from project.errors import UserError
from project.evaluation.comparison import Estimate, compare
from project.evaluation.primary_endpoint import endpoint
from project.evaluation.results import results_table
from project.evaluation.run_loading import experiment_runs, load_runs
from project.report.conditions import alike_in_every_order
from project.report.figures import MOST, STYLES, legible
from project.report.formatting import level_text, number_text, p_text
from project.report.page import build_report, compare_all, print_table
from project.report.primary import endpoint_sentence, primary, sentences

CLASSES = ["<script>alert(1)</script>", "b & c", "plain"]


def make_run(
    experiment,
    name="plain",
    seed=0,
    slope=0.6,
    rows=40,
    bare=False,
    weak=("noisy", "missing", "natural"),
    natural=(),
    lacking=False,
    **info,
):
    """A finished run whose accuracy falls from 0.9 by `slope` at level 1; it is drawn with common numbers.

    It falls under the conditions whose name begins with one of `weak`, and is the clean one under all others. `natural`
    are the realistic damages that it was tested under; `lacking` leaves its first ten rows without an image.
    """
    luck = np.random.default_rng(0).random(rows) + np.random.default_rng(seed + 1).normal(0, 0.02, rows)
    found = []
    tested = RobustnessConfig(levels=[0.1, 0.5, 0.9], natural=list(natural), natural_levels=[0.3, 0.6])
    for condition in evaluation_conditions(tested):
        share = 0.9 - slope * condition.level * str(condition).startswith(weak)
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
                "generations": 1400,
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
            "val": {"best_score": 0.8, "last": {"score": 0.7, "drop_ratio": 0.12}},
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


def comparison_of(experiment, resamples=50):
    """The runs of an experiment's folder, which are on one data set."""
    return compare(load_runs(experiment_runs(experiment)), resamples)


def page_of(experiment, resamples=50):
    comparisons = compare_all(load_runs(experiment_runs(experiment)), resamples)
    return build_report(comparisons, experiment / "report", experiment.name, resamples)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four methods: two with two seeds, ours that fails under noise on the table alone, llm without probabilities."""
    experiment = tmp_path_factory.mktemp("outputs") / "study"
    for seed in (0, 1):
        make_run(experiment, seed=seed)
        make_run(experiment, name="$x$ & <img src=x>", seed=seed, slope=0.3, perturbation="rules")
    make_run(experiment, name="ours", slope=1.5, weak=("noisy(table",), rows=60)
    folder = make_run(experiment, name="llm")
    for file, column in (("predictions", "probabilities"), ("results", "value")):
        table = pd.read_parquet(folder / f"{file}.parquet")
        table.loc[table["metric"] == "ece" if file == "results" else table.index, column] = None
        table.to_parquet(folder / f"{file}.parquet")
    (experiment / "report").mkdir()
    (experiment / "report" / "curves_2-1.png").touch()
    page_of(experiment, 100)
    return experiment


@pytest.fixture
def primary_alone(monkeypatch):
    """The page with its first part only, since figures take their time."""
    monkeypatch.setattr("project.report.page.SECTIONS", (primary,))


def html_of(study):
    return (study / "report" / "index.html").read_text(encoding="utf-8")


def table_of(study, name):
    return pd.read_csv(study / "report" / f"{name}-1.csv")


def test_the_page_stands_alone_and_escapes_what_it_is_given(study):
    html = html_of(study)
    assert "<script" not in html and "<img src=x" not in html and "<b>model" not in html
    assert "tiny &lt;b&gt;model" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http" not in html
    for text in (
        "Primary endpoint",
        "chance",
        "45,678",
        "3 of 1,510",
        "noisy(text, 0.5): 10.0%",
        "2,400",
        "◐",
        "●",
        "0.800, 0.120",
    ):
        assert text in html


def test_every_figure_and_table_is_a_file_beside_the_page(study):
    files = {path.name for path in (study / "report").iterdir()} - {"index.html"}
    assert files == {
        f"{name}-1.{end}"
        for end, names in [
            ("png", "methods curves drops reference reliability cost"),
            ("csv", "methods primary conditions seeds exposure curves calibration reliability cost runs"),
        ]
        for name in names.split()
    }
    html = html_of(study)
    assert all(name in html for name in files) and html.count("data:image/png;base64,") == 6
    conditions = table_of(study, "conditions")
    assert {"accuracy", "drop_ratio_low", "difference_high", "exposure"} <= set(conditions)
    assert not conditions.duplicated(["condition", "method"]).any()
    seeds = table_of(study, "seeds")
    assert len(seeds) == 6 * conditions["condition"].nunique()


def test_a_planted_weakness_is_found(study):
    """One model fails under noise on the table alone, and all that the page tells of it says so."""
    said = next(text for text in sentences(comparison_of(study, 100)) if text.startswith("ours"))
    assert re.search(r"ours loses most under noise 0.5 on table \(drop ratio 0.[89]", said)
    assert said in html_of(study)
    found = table_of(study, "conditions").query("method == 'ours'")
    weak = found["condition"].str.startswith("noisy(table")
    assert found["drop_ratio"][weak].min() > 0.1 and (found["drop_ratio"][~weak].dropna() == 0).all()
    curves = table_of(study, "curves").query("method == 'ours'").set_index("modality")
    assert 0 < curves["breakdown_0.1"]["table"] < 0.2
    assert np.isinf(curves["breakdown_0.1"][["image", "text", "all"]]).all() and "&gt; 0.9" in html_of(study)


def test_a_method_without_probabilities_has_no_part_in_calibration(study):
    assert not {"plain", "ours"} - set(table_of(study, "calibration"))
    assert "llm" not in {*table_of(study, "calibration"), *table_of(study, "reliability")["method"]}


def test_the_primary_endpoint_is_said_won_lost_and_not_tested(tmp_path):
    make_run(tmp_path, rows=200)
    comparison = comparison_of(tmp_path)
    assert "not tested, for there is no run of the method ours" in endpoint_sentence(comparison, endpoint(comparison))
    make_run(tmp_path, name="ours", rows=200, slope=0.0)
    make_run(tmp_path, name="boosting", rows=200, slope=0.9, val={"best_score": 0.1})
    comparison = comparison_of(tmp_path, 300)
    said = endpoint_sentence(comparison, endpoint(comparison))
    assert "ours has a drop ratio of 0.000 [0.00, 0.00]; plain, the best of 2 rivals on validation" in said
    assert re.search(r"is −3\d.\d \[.*\] points or −100.0 \[−100.0, −100.0\] %; p = 0.007, .* p = 0.013: ", said)
    assert said.endswith("ours loses less.")


def test_numbers_have_a_page_too_and_a_run_json_with_the_least_keys_is_enough(tmp_path):
    folder = make_run(tmp_path / "study", bare=True)
    predictions = pd.read_parquet(folder / "predictions.parquet")
    order = predictions["record"].str[1:].astype(float)
    predictions = predictions.assign(target=order, prediction=order + 1 + predictions["level"], probabilities=None)
    predictions.to_parquet(folder / "predictions.parquet")
    target = Target("number", 20.0)
    results_table(predictions, method="plain", data="toys", seed=0, target=target, resamples=50).to_parquet(
        folder / "results.parquet"
    )
    about = {"method": "plain", "name": "plain", "data": "toys", "seed": 0, "metric": "rmse"}
    (folder / "run.json").write_text(json.dumps(about), encoding="utf-8")
    html = page_of(tmp_path / "study").read_text(encoding="utf-8")
    assert "RMSE (unit of the target)" in html and "<h3>Cost</h3>" in html
    assert "Calibration" not in html and "Seen and unseen" not in html
    drops = pd.read_csv(tmp_path / "study" / "report" / "conditions-1.csv").set_index("condition")["drop_ratio"]
    assert drops["noisy(all, 0.5)"] == pytest.approx(1 - 1 / 1.5)


def test_two_data_sets_make_two_parts(tmp_path, primary_alone):
    make_run(tmp_path / "study")
    make_run(tmp_path / "study", name="plain-2", data="other")
    page = page_of(tmp_path / "study")
    assert page.read_text(encoding="utf-8").count("<h2>") == 2
    assert {path.name for path in page.parent.glob("*.*g")} == {"methods-1.png", "methods-2.png"}


def test_a_model_that_answers_alike_in_every_order_is_told(tmp_path):
    make_run(tmp_path, name="fusion")
    folder = make_run(tmp_path)
    predictions = pd.read_parquet(folder / "predictions.parquet")
    last = predictions[predictions["kind"] == "order"].index[-1]
    predictions.loc[last, "prediction"] = "another answer"
    predictions.to_parquet(folder / "predictions.parquet")
    assert alike_in_every_order(comparison_of(tmp_path)) == ["fusion"]


def test_many_methods_are_shared_out_so_that_no_two_look_alike():
    parts = legible([f"m{index}" for index in range(25)])
    assert [len(part) for part in parts.values()] == [MOST, MOST, 3] and list(parts) == ["", "_2", "_3"]
    assert all(part[0] == "m0" for part in parts.values())
    assert len(set(map(str, (line for _, line, _ in STYLES)))) == len({marker for *_, marker in STYLES}) == MOST
    assert legible(["m0"]) == {"": ["m0"]}


def test_numbers_are_those_of_the_predictions(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, name="ours", seed=seed, slope=0.2)
    folder = make_run(tmp_path)
    comparison = comparison_of(tmp_path, 200)
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
    text = " ".join(sentences(comparison_of(tmp_path, 300)))
    assert re.search(r"better against plain, drop ratio: −0.[^:]* on all modalities: it loses less;", text)
    assert re.search(r"worse against plain, drop ratio: \+0.[^:]*: it loses more;", text)
    assert re.search(r"twin against plain, drop ratio: 0.000 \[0.000, 0.000\][^:]*: no difference is shown;", text)


def test_rows_that_a_run_lacks_are_left_out_of_all(tmp_path):
    make_run(tmp_path, rows=40)
    make_run(tmp_path, name="ours", rows=30)
    comparison = comparison_of(tmp_path)
    assert (comparison.rows, comparison.rows_left_out) == (30, 10)


def test_the_terminal_table_is_at_most_100_columns_wide(tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, name="instructions-described-1f3a9c", slope=0.3)
    console = Console(width=140, file=io.StringIO())
    print_table(comparison_of(tmp_path), console)
    table = console.file.getvalue().split("Primary endpoint")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 100
    assert "…" not in table and "noise 0.5" in table


def test_the_verb_prints_the_paths(tmp_path, capsys, primary_alone):
    make_run(tmp_path / "study")
    run(Config(experiment="study", output=str(tmp_path), robustness=RobustnessConfig(resamples=50)), {})
    assert str(tmp_path / "study" / "report" / "index.html") in capsys.readouterr().out


def test_words_name_runs_of_any_experiment(tmp_path, capsys, primary_alone):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", name="ours", slope=0.1)
    make_run(tmp_path / "b", slope=0.2)
    assert main(["report", f"{tmp_path}/**/seed-*", f"output={tmp_path}", "robustness.resamples=50"]) == 0
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "3 runs: how robust" in html and "a/plain" in html and "b/plain" in html and "b/ours" not in html
    assert str(tmp_path / "report" / "index.html") in capsys.readouterr().out


def test_the_tables_and_curves_go_to_wandb_when_asked(tmp_path, primary_alone):
    make_run(tmp_path / "study")
    config = Config(experiment="study", output=str(tmp_path), robustness=RobustnessConfig(resamples=50))
    run(config, {"log": "true"})
    (tracked,) = (tmp_path / "study" / "report" / "wandb").glob("offline-run-*")
    logged = {path.name.rsplit("_", 2)[0] for path in (tracked / "files/media/table").rglob("*.json")}
    assert logged == {"methods-1", *(f"{modality}_table" for modality in ("image", "text", "table", "all"))}
    with pytest.raises(UserError, match="log=yes: give true or false"):
        run(config, {"log": "yes"})


def test_mistakes_are_one_clear_line(tmp_path):
    def report(*words):
        run(Config(experiment="study", output=str(tmp_path)), {"words": list(words)} if words else {})

    with pytest.raises(UserError, match=r"no finished run in .*study/\*/seed-\*; make one with python -m project"):
        report()
    folder = make_run(tmp_path / "study")
    (folder / "run.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UserError, match="run.json is damaged"):
        report(folder)
    (folder / "run.json").unlink()
    with pytest.raises(UserError, match="no finished run"):
        report(folder)


def test_numbers_read_well():
    assert [number_text(value) for value in (-0.5, float("nan"))] == ["−0.500", "–"]
    assert [p_text(p) for p in (0.0004, 0.0312, float("nan"))] == ["< 0.001", "= 0.031", "unknown"]
    assert level_text(Estimate(0.4, 0.3, np.inf), 0.9) == "0.40 [0.30, > 0.9]"
    assert level_text(Estimate(np.inf, np.nan, np.nan), 0.7) == "> 0.7"


def test_realistic_damage_and_rows_with_gaps_have_their_places(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "study", seed=seed, natural=["typing", "blur"], lacking=True)
        make_run(tmp_path / "study", name="ours", seed=seed, natural=["typing", "blur"], lacking=True, slope=0.2)
    html = page_of(tmp_path / "study").read_text(encoding="utf-8")
    for text in (
        "realistic damage",
        "typing 0.3 on text",
        "Rows that really lack a modality",
        "typing (probability that a word has a typing error)",
        "The score against realistic damage",
    ):
        assert text in html
    measures = table_of(tmp_path / "study", "curves")
    assert set(measures["damage"]) == {"noise", "typing", "blur"}
    assert set(measures[measures["damage"] == "blur"]["modality"]) == {"image"}
    comparison = comparison_of(tmp_path / "study", 200)
    assert [(presence.missing, presence.rows) for presence in comparison.genuine] == [("none", 30), ("image", 10)]
    results = pd.concat([run.results for run in comparison.runs["ours"]])
    for presence in comparison.genuine:
        own = presence.scores["ours"]
        told = results[(results.condition == "genuine") & (results.modality == presence.missing)]["value"]
        assert sorted(own.seeds) == sorted(told) and own.low <= own.value <= own.high
    assert comparison.exposure("ours", "natural(blur, 0.3)") == "unseen"
