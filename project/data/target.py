"""What is predicted: a class, a class among ordered ones, or a number."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from ..errors import UserError
from .record import Record


@dataclass(frozen=True)
class Target:
    """`classes` are in order where the kind is ordinal, and empty for numbers. `constant` is the best constant answer.

    For a number, `low` and `high` bound the training targets, in their own unit; `mean` and `scale` are of the training
    targets as they are learned, in the logarithm where `log` is set.
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
        """The score that robustness is measured on: accuracy, or the error of a number in the unit it is learned in."""
        return "accuracy" if self.kind != "number" else "rmse_log" if self.log else "rmse"

    def label(self, target: str | float | None) -> float:
        """What the loss sees: a class's index, -1 for one that no training row has; a number, standardised."""
        if self.kind == "number":
            return ((np.log(target) if self.log else target) - self.mean) / self.scale
        return self.classes.index(target) if target in self.classes else -1


def class_target(kind: Literal["class", "ordinal"], classes: set[str], train: Sequence[Record], name: str) -> Target:
    """The target of classes, among those of the training rows before any cap.

    Raises UserError where there is one class alone, or where ordinal classes are not whole numbers.
    """
    if len(classes) < 2:
        raise UserError(
            f"data={name}: the training rows have the single class {min(classes, default='none')!r}; "
            "nothing can be learned from a constant target"
        )
    if kind == "ordinal":
        words = sorted(word for word in classes if not word.lstrip("-").isdecimal())
        if words:
            raise UserError(
                f"data={name}: ordinal classes are whole numbers in order, and not {words[0]!r:.60}; "
                "number them, or set data.task=class"
            )
    majority = Counter(record.target for record in train).most_common(1)[0][0]
    return Target(kind, majority, tuple(sorted(classes, key=int if kind == "ordinal" else None)))


def number_target(train: Sequence[Record], log: bool, name: str) -> Target:
    """The target of numbers. Raises UserError where they are all equal, or not above 0 under a logarithm."""
    values = np.array([record.target for record in train], float)
    if log and values.min() <= 0:
        row = next(record for record in train if record.target <= 0)
        raise UserError(
            f"data={name}: the target of row {row.id} is {row.target:g}, and data.log=true wants numbers "
            "above 0; drop such rows, or set data.log=false"
        )
    if np.ptp(values) == 0:
        raise UserError(f"data={name}: the target is always {values[0]:g}; nothing can be learned from that")
    learned = np.log(values) if log else values
    constant = float(np.exp(learned.mean()) if log else learned.mean())
    return Target(
        "number",
        constant,
        (),
        log,
        float(values.min()),
        float(values.max()),
        float(learned.mean()),
        float(learned.std()),
    )
