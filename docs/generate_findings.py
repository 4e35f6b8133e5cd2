"""Write the marked blocks of README.md, docs/findings.md and docs/demo.md from the committed runs of docs/results.

    python docs/generate_findings.py

A block stands between <!-- generated:begin NAME --> and <!-- generated:end -->. A run folder is
docs/results/<study>/<name>/seed-<n> with run.json, predictions.parquet and results.parquet. The study `demo` gives the
block `demo`, the study `emoji` the others; the blocks of a study without committed runs stay as they are.
"""

import re
import sys
from pathlib import Path

from project.evaluation.comparison import Comparison, Estimate, compare
from project.evaluation.primary_endpoint import endpoint, primary_condition
from project.evaluation.run_loading import experiment_runs, load_runs
from project.report.formatting import (
    bounds_text,
    condition_text,
    difference_text,
    number_text,
    p_text,
    signed_text,
)

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "results"
PAGES = (ROOT / "README.md", ROOT / "docs" / "findings.md", ROOT / "docs" / "demo.md")
RESAMPLES = {"emoji": 10_000, "demo": 2000}  # make demo prints intervals of 2000
BLOCK = re.compile(r"(<!-- generated:begin (\w+) -->\n).*?(<!-- generated:end -->)", re.DOTALL)
MARKS = {None: "", "seen": "●", "partly": "◐", "unseen": "○"}
NOTES = {"plain": "no language model", "ours": "the paper's method"}


def main() -> None:
    """Rewrite the blocks of all pages."""
    blocks = committed_blocks()
    for page in PAGES:
        page.write_text(replace_blocks(page.read_text(encoding="utf-8"), blocks), encoding="utf-8")


def committed_blocks() -> dict[str, str]:
    """Return the blocks of every study that has committed runs."""
    blocks = {}
    for study, generate in ("emoji", generate_blocks), ("demo", demo_blocks):
        if (RESULTS / study).is_dir():
            blocks |= generate(compare(load_runs(experiment_runs(RESULTS / study)), RESAMPLES[study]))
    return blocks


def replace_blocks(text: str, blocks: dict[str, str]) -> str:
    """Return the page with the content of its blocks replaced; a block without new content stays as it is."""
    return BLOCK.sub(
        lambda match: f"{match[1]}{blocks[match[2]]}\n{match[3]}" if match[2] in blocks else match[0], text
    )


def demo_blocks(comparison: Comparison) -> dict[str, str]:
    """Return the block `demo`: score and drop ratio of `plain` and `ours` under each condition."""
    rows = []
    for name, condition in comparison.conditions.iterrows():
        label = condition_text(comparison, name)
        if condition["kind"] == "noisy":
            label = f"noise {condition['level']:g} on {condition['modality']}"
        cells = [label]
        for method in ("plain", "ours"):
            drop = "" if name == "clean" else _cell(comparison.drop(method, [name]))
            cells += [_cell(comparison.value(method, [name])), drop]
        rows.append([*cells, MARKS[comparison.exposure("ours", name)]])
    return {"demo": _table(["condition", "plain: accuracy", "drop ratio", "ours: accuracy", "drop ratio", ""], rows)}


def generate_blocks(comparison: Comparison) -> dict[str, str]:
    """Return the content of each block by its name. Raises ValueError if `ours`, a rival or the noise is missing."""
    result = endpoint(comparison)
    if result is None or result.best is None:
        raise ValueError(
            "the study needs runs of ours, of a rival with a validation score, and noise on all modalities"
        )
    condition, rival = result.condition, result.best.rival

    def cells(method: str) -> list[str]:
        return [
            _cell(comparison.value(method, ["clean"])),
            _cell(comparison.value(method, [condition])),
            _cell(comparison.drop(method, [condition])),
        ]

    notes = {rival: "the best rival on validation"}
    summary = [
        [f"`{method}`, {notes.get(method) or NOTES[method]}", *cells(method)]
        for method in dict.fromkeys([rival, comparison.reference, result.ours])
    ]
    ranked = sorted(comparison.methods, key=lambda method: (-comparison.validation(method), method))
    methods = [
        [
            f"`{method}`",
            str(len(comparison.runs[method])),
            number_text(comparison.validation(method)),
            *cells(method),
            _cell(comparison.value(method, comparison.select("noisy", "all", 0.9))),
            _cell(comparison.value(method, comparison.select("missing", "text"))),
        ]
        for method in ranked
    ]
    drops = [_cell(comparison.drop(method, [condition])) for method in (result.ours, rival)]
    best = result.best
    level = f"noise {comparison.conditions['level'][primary_condition(comparison)]:g} on all"
    return {
        "summary": _table(["method", "clean accuracy", f"accuracy, {level} modalities", "drop ratio"], summary),
        "methods": _table(
            [
                "method",
                "seeds",
                "validation",
                "clean accuracy",
                level,
                "drop ratio",
                "noise 0.9 on all",
                "without text",
            ],
            methods,
        ),
        "endpoint": (
            f"`{result.ours}` has a drop ratio of {drops[0]} against {drops[1]} of `{rival}`: a difference of\n"
            f"{difference_text(best.points, 1)} points, or {signed_text(best.percent.value, 0)} %; p {p_text(best.p)}, "
            f"after Holm's correction over {len(result.contrasts)} rivals p {p_text(best.adjusted)}."
        ),
    }


def _cell(estimate: Estimate) -> str:
    return f"{number_text(estimate.value)} {bounds_text(estimate)}".strip()


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in [header, ["---"] * len(header), *rows]).replace(
        " --- ", "---"
    )


if __name__ == "__main__":
    sys.exit(main())
