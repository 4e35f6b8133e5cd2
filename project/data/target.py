"""Define the prediction target: a class, an ordinal class, or a number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import UserError
from .record import Record


@dataclass(frozen=True)
class Target:
    """A target and its statistics on the training rows.

    `classes` are sorted by value for the kind ordinal, and empty for numbers. `constant` is the best constant
    prediction. For numbers, `low` and `high` bound the training targets in their own unit; `mean` and `scale` are the
    mean and standard deviation of the training targets, of their logarithms if `log` is set.
    """

    kind: Literal["class", "ordinal", "number"]
    constant: str | float
    classes: tuple[str, ...] = ()
    log: bool = False
    low: float = 0.0
    high: float = 0.0
    mean: float = 0.0
    scale: float = 1.0

    @property
    def metric(self) -> str:
        """Return the score that robustness is measured on: accuracy, rmse, or rmse_log for numbers with `log`."""
        return "accuracy" if self.kind != "number" else "rmse_log" if self.log else "rmse"

    def label(self, target: str | float | None) -> float:
        """Return the label for the loss: a standardized number or a class index; unknown classes have -1."""
        if self.kind == "number":
            return ((np.log(target) if self.log else target) - self.mean) / self.scale
        return self.classes.index(target) if target in self.classes else -1


def class_target(kind: Literal["class", "ordinal"], classes: set[str], train: Sequence[Record], name: str) -> Target:
    """Return the target with these classes, those of the training rows before any cap.

    Raises UserError if there is a single class, or if ordinal classes are not whole numbers.
    """
    if len(classes) < 2:
        raise UserError(
            f"data={name}: the training rows have the single class {min(classes, default='none')!r}; "
            "add rows of another class, or name another target"
        )
    if kind == "ordinal":
        other_names = sorted(word for word in classes if not word.lstrip("-").isdecimal())
        if other_names:
            raise UserError(
                f"data={name}: ordinal classes must be whole numbers, and not {other_names[0]!r:.60}; "
                "number them, or set data.task=class"
            )
    majority = Counter(record.target for record in train).most_common(1)[0][0]
    return Target(kind, majority, tuple(sorted(classes, key=int if kind == "ordinal" else None)))


def number_target(train: Sequence[Record], log: bool, name: str) -> Target:
    """Return the target of numbers. Raises UserError if all are equal, or if `log` is set and one is not above 0."""
    values = np.array([record.target for record in train], float)
    if log and values.min() <= 0:
        row = next(record for record in train if record.target <= 0)
        raise UserError(
            f"data={name}: the target of row {row.id} is {row.target:g}, and data.log=true needs numbers "
            "above 0; drop such rows, or set data.log=false"
        )
    if np.ptp(values) == 0:
        raise UserError(
            f"data={name}: the target is always {values[0]:g}; add rows with other values, or name another target"
        )
    scaled = np.log(values) if log else values
    constant = float(np.exp(scaled.mean()) if log else scaled.mean())
    return Target(
        "number",
        constant,
        (),
        log,
        float(values.min()),
        float(values.max()),
        float(scaled.mean()),
        float(scaled.std()),
    )
