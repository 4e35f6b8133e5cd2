"""Every private API of Optuna in use, in one place; tests/experiments/test_optuna_private.py names each of them."""

import optuna
from optuna.trial import FrozenTrial, Trial


def resume_trial(study: optuna.Study, frozen: FrozenTrial) -> Trial:
    """Return a running trial of the study as a Trial that can be continued."""
    return Trial(study, frozen._trial_id)
