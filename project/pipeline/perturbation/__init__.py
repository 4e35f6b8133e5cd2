"""Perturb training texts in rounds, with a new draw for each record and round.

The perturbation depends on neither the target nor the model. freelb does, but it perturbs embeddings, not texts.
"""

from collections.abc import Sequence

from ...config.schema import PerturbationConfig
from ...llm.client import LanguageModel
from ..alignment import Parts
from .instructions import rewrite
from .rules import apply_rules


def perturb(
    ids: Sequence[str],
    texts: Sequence[Parts],
    round: int,
    config: PerturbationConfig,
    llm: LanguageModel | None,
    classes: tuple[str, ...],
) -> list[Parts]:
    """Return the texts of the records `ids`, rewritten in round `round`; none and freelb return them unchanged.

    Raises ValueError for an unknown kind.
    """
    match config.kind:
        case "none" | "freelb":
            return list(texts)
        case "rules":
            return [apply_rules(parts, config.level, id, round) for id, parts in zip(ids, texts, strict=True)]
        case "paraphrase" | "instructions" | "all":
            return rewrite(ids, texts, round, config, llm, classes)
    raise ValueError(f"unknown kind of perturbation: {config.kind}")
