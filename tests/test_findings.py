"""The generated blocks of the pages equal what the committed runs give."""

import importlib.util
import json
from pathlib import Path

import pandas as pd
import pytest

from project.evaluation.comparison import compare
from project.evaluation.run_loading import experiment_runs, load_runs

ROOT = Path(__file__).parent.parent
SPEC = importlib.util.spec_from_file_location("generate_findings", ROOT / "docs" / "generate_findings.py")
generate_findings = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(generate_findings)

CONDITIONS = {
    "clean": ("clean", "none", 0.0),
    "noisy(all, 0.5)": ("noisy", "all", 0.5),
    "noisy(all, 0.9)": ("noisy", "all", 0.9),
    "missing(text)": ("missing", "text", 1.0),
}


def write_run(folder, name, seed, correct, validation):
    """Write a run with 20 rows in 10 groups; `correct` is the number of right rows under each condition."""
    predictions = [
        {
            "record": f"r{row:02d}",
            "group": f"g{row // 2}",
            "present": "text,table",
            "corruption": "",
            "condition": condition,
            "kind": kind,
            "modality": modality,
            "level": level,
            "order": "text,table",
            "target": "x",
            "prediction": "x" if row < count else "y",
        }
        for (condition, (kind, modality, level)), count in zip(CONDITIONS.items(), correct, strict=True)
        for row in range(20)
    ]
    run = folder / name / f"seed-{seed}"
    run.mkdir(parents=True)
    pd.DataFrame(predictions).to_parquet(run / "predictions.parquet")
    pd.DataFrame({"value": []}).to_parquet(run / "results.parquet")
    info = {"method": name, "name": name, "data": "toys", "seed": seed, "constant": "y", "metric": "accuracy"}
    info["perturbation"] = "instructions" if name == "ours" else "none"
    (run / "run.json").write_text(json.dumps(info | {"val": {"best_score": validation}}))


@pytest.fixture
def blocks(tmp_path):
    """Return the blocks of three methods, two of them with two seeds."""
    for seed in (0, 1):
        write_run(tmp_path, "ours", seed, (16, 8, 4, 2), 0.8)
        write_run(tmp_path, "fusion_noise", seed, (20, 15, 10, 12), 0.9)
    write_run(tmp_path, "plain", 0, (12, 6, 3, 3), 0.7)
    return generate_findings.generate_blocks(compare(load_runs(experiment_runs(tmp_path)), 200))


def test_the_tables_have_the_values_of_the_runs_best_on_validation_first(blocks):
    header, line, *rows = blocks["methods"].splitlines()
    table = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert header.startswith("| method | seeds | validation |") and set(line) <= set("|-")
    assert [row[:3] for row in table] == [
        ["`fusion_noise`", "2", "0.900"],
        ["`ours`", "2", "0.800"],
        ["`plain`", "1", "0.700"],
    ]
    # Clean accuracy, accuracy under noise, drop ratio, accuracy under more noise, accuracy without text.
    assert [cell.split()[0] for cell in table[1][3:]] == ["0.800", "0.400", "0.500", "0.200", "0.100"]
    assert all("[" in cell and "]" in cell for row in table for cell in row[3:])


def test_the_summary_has_the_best_rival_plain_and_ours(blocks):
    rows = blocks["summary"].splitlines()[2:]
    assert [row.split("`")[1] for row in rows] == ["fusion_noise", "plain", "ours"]
    assert "0.250" in rows[0] and "0.500" in rows[1] and "0.500" in rows[2]


def test_the_endpoint_is_a_difference_in_points_and_percent(blocks):
    text = blocks["endpoint"]
    assert "`ours` has a drop ratio of 0.500" in text and "against 0.250" in text and "of `fusion_noise`" in text
    assert "+25.0 [" in text and "+100 %" in text and "over 2 rivals" in text


def test_blocks_are_replaced_and_blocks_without_committed_runs_stay():
    page = "a\n<!-- generated:begin one -->\nold\n<!-- generated:end -->\nb\n"
    assert generate_findings.replace_blocks(page, {"one": "new"}) == page.replace("old", "new")
    assert generate_findings.replace_blocks(page, {"two": "new"}) == page


def test_the_demo_has_one_row_per_condition(tmp_path):
    write_run(tmp_path, "ours", 0, (16, 8, 4, 2), 0.8)
    write_run(tmp_path, "plain", 0, (20, 15, 3, 3), 0.7)
    block = generate_findings.demo_blocks(compare(load_runs(experiment_runs(tmp_path)), 200))["demo"]
    rows = [[cell.strip() for cell in row.strip("|").split("|")] for row in block.splitlines()[2:]]
    assert [row[0] for row in rows] == ["clean", "noise 0.5 on all", "noise 0.9 on all", "without text"]
    assert [cell.split()[0] for cell in rows[1][1:5]] == ["0.750", "0.250", "0.400", "0.500"]
    assert rows[0][2] == rows[0][4] == rows[0][5] == "" and rows[1][5] in "●◐○"


def test_runs_without_a_rival_are_an_error(tmp_path):
    write_run(tmp_path, "ours", 0, (16, 8, 4, 2), 0.8)
    with pytest.raises(ValueError, match="needs runs of ours"):
        generate_findings.generate_blocks(compare(load_runs(experiment_runs(tmp_path)), 50))


def test_the_pages_equal_what_the_script_writes():
    blocks = generate_findings.committed_blocks()
    assert blocks
    for page in generate_findings.PAGES:
        text = page.read_text(encoding="utf-8")
        assert "generated:begin" in text
        assert generate_findings.replace_blocks(text, blocks) == text, "run python docs/generate_findings.py"
