"""Name the conditions under which a model is evaluated."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, permutations

from ..config.schema import RobustnessConfig
from ..data.record import MODALITIES
from .natural import NATURAL


@dataclass(frozen=True)
class Condition:
    """One condition: the corrupted or missing `modalities` and, for the kind `order`, the reading order.

    `corruption` is a name in corruption.natural.NATURAL for the kind `natural`, and empty for the other kinds.
    """

    kind: str
    modalities: tuple[str, ...] = ()
    level: float = 0.0
    order: tuple[str, ...] = MODALITIES
    seed: int = 0
    corruption: str = ""

    @property
    def modality(self) -> str:
        """Return the corrupted modalities as one word: image, text+table, none, or all for noise on several."""
        if self.kind == "noisy" and len(self.modalities) > 1:
            return "all"
        return "+".join(self.modalities) or "none"

    def __str__(self) -> str:
        match self.kind:
            case "noisy":
                return f"noisy({self.modality}, {self.level:g})"
            case "natural":
                return f"natural({self.corruption}, {self.level:g})"
            case "missing":
                return f"missing({', '.join(self.modalities)})"
            case "order":
                return f"order({', '.join(self.order)})"
        return self.kind


CLEAN = Condition("clean")
ATTACK = Condition("attack")
"""Clean rows whose texts evaluation.attack rewrites against the attacked model; `corrupt` does not produce it."""


def noisy(modalities: tuple[str, ...], level: float, seed: int) -> Condition:
    """Return the condition of Gaussian noise on pixels and dropout of words and cells, at one level in [0, 1]."""
    return Condition("noisy", modalities, level, seed=seed)


def natural(corruption: str, level: float, seed: int) -> Condition:
    """Return the condition of the realistic corruption of that name, at one level in [0, 1]."""
    return Condition("natural", (NATURAL[corruption].modality,), level, seed=seed, corruption=corruption)


def middle_level(levels: Iterable[float]) -> float | None:
    """Return the level nearest to 0.5, the lower of two equally near ones; None without levels."""
    # Rounding makes 0.3 and 0.7 equally near.
    return min(sorted(levels), key=lambda level: round(abs(level - 0.5), 9), default=None)


def evaluation_conditions(config: RobustnessConfig, modalities: tuple[str, ...] = MODALITIES) -> list[Condition]:
    """Return the conditions for data with these modalities: clean, then noise, missing, order and natural.

    Natural corruptions are those that the configuration names and whose modality the data have. With a single modality,
    noise on it and noise on all modalities are one condition, and there is no other order.
    """
    single = ((name,) for name in modalities) if config.noise == "each" else ()
    targets = dict.fromkeys([*single, modalities])
    conditions = [CLEAN]
    conditions += [noisy(target, level, config.seed) for target in targets for level in config.levels]
    sizes = {"none": (), "single": (1,), "pairs": (1, 2)}[config.missing]
    conditions += [Condition("missing", names, 1.0) for size in sizes for names in combinations(modalities, size)]
    # The reversed order comes first, so that a few orders are the most different ones.
    orders = [order for order in reversed(list(permutations(modalities))) if order != modalities]
    conditions += [Condition("order", order=order) for order in orders[: config.orders]]
    return conditions + [
        natural(name, level, config.seed)
        for name in dict.fromkeys(config.natural)
        if NATURAL[name].modality in modalities
        for level in dict.fromkeys(config.natural_levels)
    ]


def validation_conditions(config: RobustnessConfig, modalities: tuple[str, ...] = MODALITIES) -> list[Condition]:
    """Return the conditions of val/drop_ratio: clean, and noise on all modalities from a seed that no test uses."""
    return [CLEAN] + [noisy(modalities, level, config.val_seed) for level in config.val_levels]
