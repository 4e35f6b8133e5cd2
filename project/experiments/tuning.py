"""Select the settings of a method by the validation scores of its trials."""

import pandas as pd

from ..metrics.scores import SCORES
from .study_file import Entry


def choose_settings(entry: Entry) -> tuple[str, ...] | None:
    """Return the settings with the best validation score, the first of equal ones; None if a trial is unfinished.

    Without a grid, returns an empty tuple: the default settings.
    """
    if not entry.grid:
        return ()
    trials = entry.trials()
    if not all(trial.finished for trial in trials):
        return None
    validations = [trial.validation for trial in trials]
    better = max if SCORES[validations[0][0]].higher_is_better else min
    scores = [score for _, score in validations]
    return entry.grid[scores.index(better(scores))]


def tuning_table(entries: list[Entry]) -> pd.DataFrame:
    """Return one row per finished trial: settings, validation score, cost, and whether the settings were chosen."""
    rows = []
    for entry in entries:
        best_settings = choose_settings(entry)
        for trial, settings in zip(entry.trials(), entry.grid, strict=True):
            if trial.finished:
                metric, score = trial.validation
                rows.append(
                    {
                        "tier": entry.tier,
                        "name": entry.name,
                        "fold": entry.fold,
                        "settings": " ".join(settings),
                        "metric": metric,
                        "validation": score,
                        "seconds": trial.seconds,
                        "chosen": settings == best_settings,
                        "folder": str(trial.folder),
                    }
                )
    return pd.DataFrame(rows)
