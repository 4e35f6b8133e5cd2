"""What a method reports of its training, for run.json."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Validation:
    """Scores on the validation rows: the best `score` of the training, and the panel of the last validation.

    `last` is from `panel_summary`: score, clean and, if there are corrupted conditions, drop_ratio.
    """

    best_score: float
    last: dict[str, float]

    @classmethod
    def of_panel(cls, panel: dict[str, float]) -> "Validation":
        """Return the scores of a method that is validated once."""
        return cls(panel["score"], panel)


@dataclass(frozen=True)
class FitInfo:
    """What `fit` of a method returns: seconds by part, validation scores, and counts; None for what it lacks.

    `forward_samples` counts the samples that the model learned from, `scoring_samples` those that it only scored.
    `devices` and `passes` (gradient accumulation) divide a step. `perturbation` is what training saw, if that differs
    from config.perturbation.kind. `extra` holds further keys of run.json, such as hyperparameters that `fit` chose.
    """

    seconds: dict[str, float]
    val: Validation
    steps: int | None = None
    forward_samples: int | None = None
    scoring_samples: int | None = None
    epochs: int | None = None
    devices: int | None = None
    passes: int | None = None
    perturbation: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)
