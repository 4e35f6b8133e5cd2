"""The report on synthetic run folders: numbers, pairing, escaping, and a self-contained page."""

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
from project.report.conditions import order_invariant_methods
from project.report.figures import MAX_METHODS, METHOD_STYLES, split_methods
from project.report.formatting import condition_text, level_text, number_text, p_text
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
    incomplete=False,
    **info,
):
    """Write a finished run whose accuracy falls linearly from 0.9 by `slope` at level 1; all runs share random numbers.

    The accuracy falls under the conditions whose name begins with one of `weak`, and equals the clean one under all
    others. `natural` are the tested realistic corruptions; with `incomplete` the first ten rows have no image.
    """
    draws = np.random.default_rng(0).random(rows) + np.random.default_rng(seed + 1).normal(0, 0.02, rows)
    predicted = []
    tested = RobustnessConfig(levels=[0.1, 0.5, 0.9], natural=list(natural), natural_levels=[0.3, 0.6])
    for condition in evaluation_conditions(tested):
        share = 0.9 - slope * condition.level * str(condition).startswith(weak)
        for index in range(rows):
            target = CLASSES[index % 3]
            prediction = target if draws[index] < share else CLASSES[(index + 1) % 3]
            predicted.append(
                {
                    "record": f"r{index:03d}",
                    "group": f"g{index}",
                    "present": "text,table" if incomplete and index < 10 else "image,text,table",
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
    run_json = {"method": info.pop("method", name), "name": name, "data": "toys", "seed": seed}
    if not bare:
        run_json |= {
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
    run_json |= info
    folder = experiment / name / f"seed-{seed}"
    folder.mkdir(parents=True)
    predictions = pd.DataFrame(predicted)
    predictions.to_parquet(folder / "predictions.parquet")
    results_table(
        predictions,
        method=run_json["method"],
        data=run_json["data"],
        seed=seed,
        target=Target("class", CLASSES[0], tuple(CLASSES)),
        resamples=50,
    ).to_parquet(folder / "results.parquet")
    (folder / "run.json").write_text(json.dumps(run_json), encoding="utf-8")
    return folder


def compare_runs(experiment, resamples=50):
    """Compare the runs of an experiment, which have one data set."""
    return compare(load_runs(experiment_runs(experiment)), resamples)


def build_page(experiment, resamples=50):
    comparisons = compare_all(load_runs(experiment_runs(experiment)), resamples)
    return build_report(comparisons, experiment / "report", experiment.name, resamples)


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Four methods: two with two seeds, ours that fails only under noise on the table, llm without probabilities."""
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
    build_page(experiment, 100)
    return experiment


@pytest.fixture
def only_primary(monkeypatch):
    """Build only the first section, because figures are slow."""
    monkeypatch.setattr("project.report.page.SECTIONS", (primary,))


def read_html(study):
    return (study / "report" / "index.html").read_text(encoding="utf-8")


def read_table(study, name):
    return pd.read_csv(study / "report" / f"{name}-1.csv")


def test_the_page_is_self_contained_and_escapes_names(study):
    html = read_html(study)
    assert "<script" not in html and "<img src=x" not in html and "<b>model" not in html
    assert "tiny &lt;b&gt;model" in html
    assert not re.findall(r'(?:src|href)="(?!data:)', html) and "http" not in html
    for text in (
        "Primary endpoint",
        "Chance",
        "45,678",
        "3 of 1,510",
        "noisy(text, 0.5): 10.0%",
        "2,400",
        "◐",
        "●",
        "0.800, 0.120",
    ):
        assert text in html


def test_every_figure_and_table_is_a_file_next_to_the_page(study):
    files = {path.name for path in (study / "report").iterdir()} - {"index.html"}
    assert files == {
        f"{name}-1.{end}"
        for end, names in [
            ("png", "methods curves drops reference reliability cost"),
            ("csv", "methods primary conditions seeds exposure curves calibration reliability cost runs"),
        ]
        for name in names.split()
    }
    html = read_html(study)
    assert all(name in html for name in files) and html.count("data:image/png;base64,") == 6
    conditions = read_table(study, "conditions")
    assert {"accuracy", "drop_ratio_low", "difference_high", "exposure"} <= set(conditions)
    assert not conditions.duplicated(["condition", "method"]).any()
    seeds = read_table(study, "seeds")
    assert len(seeds) == 6 * conditions["condition"].nunique()


def test_a_method_that_fails_under_one_corruption_is_reported(study):
    """Ours fails only under noise on the table."""
    sentence = next(text for text in sentences(compare_runs(study, 100)) if text.startswith("ours"))
    assert re.search(r"ours loses most under noise 0.5 on table \(drop ratio 0.[89]", sentence)
    assert sentence in read_html(study)
    rows = read_table(study, "conditions").query("method == 'ours'")
    weak = rows["condition"].str.startswith("noisy(table")
    assert rows["drop_ratio"][weak].min() > 0.1 and (rows["drop_ratio"][~weak].dropna() == 0).all()
    curves = read_table(study, "curves").query("method == 'ours'").set_index("modality")
    assert 0 < curves["breakdown_0.1"]["table"] < 0.2
    assert np.isinf(curves["breakdown_0.1"][["image", "text", "all"]]).all() and "&gt; 0.9" in read_html(study)


def test_calibration_leaves_out_methods_without_probabilities(study):
    assert not {"plain", "ours"} - set(read_table(study, "calibration"))
    assert "llm" not in {*read_table(study, "calibration"), *read_table(study, "reliability")["method"]}


def test_the_primary_endpoint_is_reported_as_won_or_as_not_tested(tmp_path):
    make_run(tmp_path, rows=200)
    comparison = compare_runs(tmp_path)
    assert "not tested, because the report has no run of the method ours" in endpoint_sentence(
        comparison, endpoint(comparison)
    )
    make_run(tmp_path, name="ours", rows=200, slope=0.0)
    make_run(tmp_path, name="boosting", rows=200, slope=0.9, val={"best_score": 0.1})
    comparison = compare_runs(tmp_path, 300)
    sentence = endpoint_sentence(comparison, endpoint(comparison))
    assert "ours has a drop ratio of 0.000 [0.00, 0.00]; plain, the best of 2 rivals on validation" in sentence
    assert re.search(r"is −3\d.\d \[.*\] points or −100.0 \[−100.0, −100.0\] %; p = 0.007, .* p = 0.013: ", sentence)
    assert sentence.endswith("ours loses less.")


def test_a_numeric_target_and_a_minimal_run_json_give_a_page(tmp_path):
    folder = make_run(tmp_path / "study", bare=True)
    predictions = pd.read_parquet(folder / "predictions.parquet")
    targets = predictions["record"].str[1:].astype(float)
    predictions = predictions.assign(target=targets, prediction=targets + 1 + predictions["level"], probabilities=None)
    predictions.to_parquet(folder / "predictions.parquet")
    target = Target("number", 20.0)
    results_table(predictions, method="plain", data="toys", seed=0, target=target, resamples=50).to_parquet(
        folder / "results.parquet"
    )
    run_json = {"method": "plain", "name": "plain", "data": "toys", "seed": 0, "metric": "rmse"}
    (folder / "run.json").write_text(json.dumps(run_json), encoding="utf-8")
    html = build_page(tmp_path / "study").read_text(encoding="utf-8")
    assert "RMSE (unit of the target)" in html and "<h3>Cost</h3>" in html
    assert "Calibration" not in html and "Seen and unseen" not in html
    drops = pd.read_csv(tmp_path / "study" / "report" / "conditions-1.csv").set_index("condition")["drop_ratio"]
    assert drops["noisy(all, 0.5)"] == pytest.approx(1 - 1 / 1.5)


def test_two_data_sets_give_two_parts(tmp_path, only_primary):
    make_run(tmp_path / "study")
    make_run(tmp_path / "study", name="plain-2", data="other")
    page = build_page(tmp_path / "study")
    assert page.read_text(encoding="utf-8").count("<h2>") == 2
    assert {path.name for path in page.parent.glob("*.*g")} == {"methods-1.png", "methods-2.png"}


def test_order_invariant_methods_have_equal_predictions_in_every_order(tmp_path):
    make_run(tmp_path, name="fusion")
    folder = make_run(tmp_path)
    predictions = pd.read_parquet(folder / "predictions.parquet")
    last = predictions[predictions["kind"] == "order"].index[-1]
    predictions.loc[last, "prediction"] = "another answer"
    predictions.to_parquet(folder / "predictions.parquet")
    assert order_invariant_methods(compare_runs(tmp_path)) == ["fusion"]


def test_a_part_of_many_methods_has_unique_styles():
    parts = split_methods([f"m{index}" for index in range(25)])
    assert [len(part) for part in parts.values()] == [MAX_METHODS, MAX_METHODS, 3] and list(parts) == ["", "_2", "_3"]
    assert all(part[0] == "m0" for part in parts.values())
    assert (
        len(set(map(str, (line for _, line, _ in METHOD_STYLES))))
        == len({marker for *_, marker in METHOD_STYLES})
        == MAX_METHODS
    )
    assert split_methods(["m0"]) == {"": ["m0"]}


def test_numbers_follow_from_the_predictions(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path, name="ours", seed=seed, slope=0.2)
    folder = make_run(tmp_path)
    comparison = compare_runs(tmp_path, 200)
    assert comparison.methods == ["plain", "ours"] and comparison.reference == "plain"
    results = pd.read_parquet(folder / "results.parquet").query("metric == 'drop_ratio' and modality == 'all'")
    drop = comparison.drop("plain", ["noisy(all, 0.5)"])
    assert drop.value == pytest.approx(results[results.level == 0.5]["value"].item())
    clean = comparison.value("ours", ["clean"])
    assert clean.value == pytest.approx(np.mean(clean.seeds)) and len(clean.seeds) == 2
    names = comparison.select("missing")
    mean = np.mean([comparison.drop("ours", [name]).value for name in names])
    assert comparison.drop("ours", names).value == pytest.approx(mean)


def test_the_sentences_name_better_worse_and_equal_methods(tmp_path):
    make_run(tmp_path, rows=200)
    make_run(tmp_path, name="better", rows=200, slope=0.0)
    make_run(tmp_path, name="worse", rows=200, slope=0.9)
    make_run(tmp_path, name="twin", rows=200)
    text = " ".join(sentences(compare_runs(tmp_path, 300)))
    assert re.search(r"better against plain, drop ratio: −0.[^:]* on all modalities: it loses less;", text)
    assert "better loses most" not in text and "worse loses most under noise 0.5 on" in text
    assert re.search(r"worse against plain, drop ratio: \+0.[^:]*: it loses more;", text)
    assert re.search(r"twin against plain, drop ratio: 0.000 \[0.000, 0.000\][^:]*: no clear difference;", text)


def test_rows_that_one_run_lacks_are_left_out(tmp_path):
    make_run(tmp_path, rows=40)
    make_run(tmp_path, name="ours", rows=30)
    comparison = compare_runs(tmp_path)
    assert (comparison.rows, comparison.rows_left_out) == (30, 10)


def test_the_terminal_table_is_at_most_100_columns_wide(tmp_path):
    make_run(tmp_path)
    make_run(tmp_path, name="instructions-described-1f3a9c", slope=0.3)
    console = Console(width=140, file=io.StringIO())
    print_table(compare_runs(tmp_path), console)
    table = console.file.getvalue().split("Primary endpoint")[0]
    assert max(len(line.rstrip()) for line in table.splitlines()) <= 100
    assert "…" not in table and "noise 0.5" in table


def test_the_report_prints_its_path(tmp_path, capsys, only_primary):
    make_run(tmp_path / "study")
    run(Config(experiment="study", output=str(tmp_path), robustness=RobustnessConfig(resamples=50)), {})
    assert str(tmp_path / "study" / "report" / "index.html") in capsys.readouterr().out


def test_patterns_select_runs_of_any_experiment(tmp_path, capsys, only_primary):
    make_run(tmp_path / "a")
    make_run(tmp_path / "b", name="ours", slope=0.1)
    make_run(tmp_path / "b", slope=0.2)
    assert main(["report", f"{tmp_path}/**/seed-*", f"output={tmp_path}", "robustness.resamples=50"]) == 0
    html = (tmp_path / "report" / "index.html").read_text(encoding="utf-8")
    assert "3 runs: how robust" in html and "a/plain" in html and "b/plain" in html and "b/ours" not in html
    assert str(tmp_path / "report" / "index.html") in capsys.readouterr().out


def test_log_true_logs_tables_and_curves_to_wandb(tmp_path, only_primary):
    make_run(tmp_path / "study")
    config = Config(experiment="study", output=str(tmp_path), robustness=RobustnessConfig(resamples=50))
    run(config, {"log": "true"})
    (wandb_run,) = (tmp_path / "study" / "report" / "wandb").glob("offline-run-*")
    logged = {path.name.rsplit("_", 2)[0] for path in (wandb_run / "files/media/table").rglob("*.json")}
    assert logged == {"methods-1", *(f"{modality}_table" for modality in ("image", "text", "table", "all"))}
    with pytest.raises(UserError, match="log=yes: give true or false"):
        run(config, {"log": "yes"})


def test_user_errors_name_the_cause(tmp_path):
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


def test_format_of_numbers():
    assert [number_text(value) for value in (-0.5, float("nan"))] == ["−0.500", "–"]
    assert [p_text(p) for p in (0.0004, 0.0312, float("nan"))] == ["< 0.001", "= 0.031", "unknown"]
    assert level_text(Estimate(0.4, 0.3, np.inf), 0.9) == "0.40 [0.30, > 0.9]"
    assert level_text(Estimate(np.inf, np.nan, np.nan), 0.7) == "> 0.7"


def test_realistic_corruptions_and_incomplete_rows_have_sections(tmp_path):
    for seed in (0, 1):
        make_run(tmp_path / "study", seed=seed, natural=["typing", "blur"], incomplete=True)
        make_run(tmp_path / "study", name="ours", seed=seed, natural=["typing", "blur"], incomplete=True, slope=0.2)
    html = build_page(tmp_path / "study").read_text(encoding="utf-8")
    for text in (
        "realistic corruption",
        "typing 0.3 on text",
        "Rows with genuinely missing modalities",
        "typing (probability that a word has a typing error)",
        "Score against the level of realistic corruptions",
    ):
        assert text in html
    measures = read_table(tmp_path / "study", "curves")
    assert set(measures["damage"]) == {"noise", "typing", "blur"}
    assert set(measures[measures["damage"] == "blur"]["modality"]) == {"image"}
    comparison = compare_runs(tmp_path / "study", 200)
    assert [(presence.missing, presence.rows) for presence in comparison.genuine] == [("none", 30), ("image", 10)]
    results = pd.concat([run.results for run in comparison.runs["ours"]])
    for presence in comparison.genuine:
        estimate = presence.scores["ours"]
        values = results[(results.condition == "genuine") & (results.modality == presence.missing)]["value"]
        assert sorted(estimate.seeds) == sorted(values) and estimate.low <= estimate.value <= estimate.high
    assert comparison.exposure("ours", "natural(blur, 0.3)") == "unseen"
    names = ["natural(blur, 0.3)", "missing(image)", "natural(fog, 0.3)"]
    assert [condition_text(comparison, name) for name in names] == [
        "blur 0.3 on image",
        "without image",
        "natural(fog, 0.3)",  # is not in the comparison
    ]
