"""Further arguments of Lightning's Trainer, debug presets, and the choice of a logger."""

import json

import pandas as pd
import pytest

from project.cli import train as train_verb
from project.config.compose import load_config
from project.config.run_identity import run_folder
from project.errors import UserError
from project.training.fit import CHECK_EVERY


@pytest.fixture
def train(tiny_args):
    """Train the rules method with further arguments, and return the run folder."""

    def run(*args, **options):
        config = load_config([*tiny_args, "method=rules", *args])
        train_verb.run(config, options)
        return run_folder(config)

    return run


def steps(folder):
    return json.loads((folder / "run.json").read_text())["steps"]


def test_extra_arguments_reach_the_trainer(train):
    assert steps(train("trainer.extra.limit_train_batches=2", evaluate="false")) == 6


@pytest.mark.parametrize(
    ("arg", "message"),
    [
        ("max_epochs=3", "trainer.extra.max_epochs cannot be set: the project sets it; remove it"),
        ("fast_dev_run=true", "trainer.extra.fast_dev_run cannot be set: the project sets it; remove it"),
        ("profilr=simple", "trainer.extra.profilr is no argument of Lightning's Trainer; did you mean profiler?"),
    ],
)
def test_an_extra_argument_that_is_set_already_or_unknown_is_refused(train, arg, message):
    with pytest.raises(UserError) as error:
        train(f"trainer.extra.{arg}")
    assert str(error.value) == message


def test_the_csv_logger_writes_the_curves_of_each_start_and_no_wandb_run(train):
    folder = train("logger=csv", "wandb.mode=offline", evaluate="false")
    curves = pd.read_csv(folder / "csv/version_0/metrics.csv")
    assert curves["val/score"].notna().sum() == 3
    assert curves["train/loss"].notna().sum() == steps(folder) // CHECK_EVERY
    assert not (folder / "wandb").exists()


def test_logger_none_writes_no_curves(train):
    folder = train("logger=none", "wandb.mode=offline", "trainer.epochs=1")
    assert (folder / "results.parquet").is_file()
    assert not (folder / "wandb").exists() and not (folder / "csv").exists()


def test_the_overfit_preset_reads_only_eight_clean_rows(train):
    info = json.loads((train("debug=overfit", "trainer.epochs=3", evaluate="false") / "run.json").read_text())
    assert (info["steps"], info["forward_samples"]) == (3, 3 * 8)


@pytest.mark.parametrize("method", ["ours", "ours_worst", "ours_consistency", "freelb", "plain", "fusion", "boosting"])
@pytest.mark.parametrize("preset", ["fast", "overfit", "profiler"])
def test_every_debug_preset_fits_every_kind_of_method(method, preset):
    load_config([f"method={method}", f"debug={preset}"])


def test_the_profiler_preset_prints_the_seconds_of_each_step(train, capfd, caplog):
    with caplog.at_level("INFO"):
        train("debug=profiler", "trainer.epochs=1", evaluate="false")
    captured = capfd.readouterr()
    assert "run_training_batch" in captured.out + captured.err + caplog.text
