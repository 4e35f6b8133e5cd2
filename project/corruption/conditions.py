"""The named corruption set-ups under which a model is evaluated."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, permutations

from ..config.schema import RobustnessConfig
from ..data.record import MODALITIES
from .natural import NATURAL


@dataclass(frozen=True)
class Condition:
    """One set-up. `modalities` are those corrupted or missing; `order` is the reading order, where it is changed.

    `corruption` is the name in corruption.natural.NATURAL of a realistic damage, and empty in the other kinds.
    """

    kind: str
    modalities: tuple[str, ...] = ()
    level: float = 0.0
    order: tuple[str, ...] = MODALITIES
    seed: int = 0
    corruption: str = ""

    @property
    def modality(self) -> str:
        """The corrupted modalities in one word: image, text+table, none; all where noise is on several."""
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
"""The clean rows, their texts rewritten against the attacked model (attack.py); no corruption of a record makes it."""


def noisy(modalities: tuple[str, ...], level: float, seed: int) -> Condition:
    """Gaussian noise on pixels, dropout of words and of table columns, at one level in [0, 1]."""
    return Condition("noisy", modalities, level, seed=seed)


def natural(corruption: str, level: float, seed: int) -> Condition:
    """The realistic damage of that name, of the one modality that it damages, at one level in [0, 1]."""
    return Condition("natural", (NATURAL[corruption].modality,), level, seed=seed, corruption=corruption)


def middle_level(levels: Iterable[float]) -> float | None:
    """The level that is nearest to 0.5, the lower of two; None where there is none."""
    # Rounded, for 0.3 and 0.7 are equally near.
    return min(sorted(levels), key=lambda level: round(abs(level - 0.5), 9), default=None)


def evaluation_conditions(config: RobustnessConfig, modalities: tuple[str, ...] = MODALITIES) -> list[Condition]:
    """All set-ups of the evaluation of data with these modalities: clean first, then noise, missing, order,
    and the realistic damage that the configuration names, of the modalities that are there.

    With a single modality there is no noise on all besides the noise on it, and no other order.
    """
    alone = ((name,) for name in modalities) if config.noise == "each" else ()
    targets = dict.fromkeys([*alone, modalities])
    conditions = [CLEAN]
    conditions += [noisy(target, level, config.seed) for target in targets for level in config.levels]
    sizes = {"none": (), "single": (1,), "pairs": (1, 2)}[config.missing]
    conditions += [Condition("missing", names, 1.0) for size in sizes for names in combinations(modalities, size)]
    # The reverse first: with few orders asked for, the most different ones are tested.
    orders = [order for order in reversed(list(permutations(modalities))) if order != modalities]
    conditions += [Condition("order", order=order) for order in orders[: config.orders]]
    return conditions + [
        natural(name, level, config.seed)
        for name in dict.fromkeys(config.natural)
        if NATURAL[name].modality in modalities
        for level in dict.fromkeys(config.natural_levels)
    ]


def validation_conditions(config: RobustnessConfig, modalities: tuple[str, ...] = MODALITIES) -> list[Condition]:
    """The panel of val/drop_ratio: clean and noise on all modalities, from a seed that the test never uses."""
    return [CLEAN] + [noisy(modalities, level, config.val_seed) for level in config.val_levels]
