"""The private APIs of Optuna that project/experiments/optuna_private.py uses still exist and work."""

import optuna

from project.experiments.optuna_private import resume_trial


def test_frozen_trial_trial_id_continues_a_running_trial():
    study = optuna.create_study()
    study.ask().suggest_float("lr", 0, 1)
    [frozen] = study.get_trials(deepcopy=False)
    trial = resume_trial(study, frozen)
    assert trial.number == frozen.number and trial.suggest_float("lr", 0, 1) == frozen.params["lr"]
    study.tell(trial, 0.5)
    assert study.best_value == 0.5
