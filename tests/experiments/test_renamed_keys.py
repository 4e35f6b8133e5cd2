"""Study and sweep files with the old names of renamed keys are still read."""

from project.experiments.study_file import read_study
from project.experiments.sweep_file import read_sweep

STUDY = """
experiment: default
overrides: {alignment.facts: 0.7}
tiers:
  A:
    seeds: [0]
    methods: [{name: described, method: ours, overrides: {perturbation.place: described}}]
"""
SWEEP = """
method: grid
metric: {name: val/best_score, goal: maximize}
parameters:
  method: {value: ours}
  perturbation.worst: {values: [1, 2]}
"""


def test_a_study_file_may_use_old_names(tmp_path):
    (tmp_path / "study.yaml").write_text(STUDY)
    [entry] = read_study(tmp_path / "study.yaml", [f"output={tmp_path}"]).entries
    config = entry.run(0).config
    assert (config.perturbation.stage, config.alignment.min_fact_recall) == ("described", 0.7)


def test_a_sweep_file_may_use_old_names(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert read_sweep(tmp_path / "sweep.yaml").grid() == [{"perturbation.worst": "1"}, {"perturbation.worst": "2"}]


def test_a_new_name_on_the_command_line_replaces_the_old_name_of_a_sweep_file(tmp_path):
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    assert read_sweep(tmp_path / "sweep.yaml", ["perturbation.num_candidates=2"]).grid() == [{}]
