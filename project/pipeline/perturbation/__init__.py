"""Training-only rewriting of texts, in rounds: a new draw for each record and round.

Nothing here sees a row's target, nor what the model answers: freelb, which does, moves embeddings and rewrites nothing.
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
    """The texts of the records `ids` as round `round` rewrites them; none and freelb give them back unchanged.

    Raises ValueError for another kind.
    """
    match config.kind:
        case "none" | "freelb":
            return list(texts)
        case "rules":
            return [apply_rules(parts, config.level, id, round) for id, parts in zip(ids, texts, strict=True)]
        case "paraphrase" | "instructions" | "all":
            return rewrite(ids, texts, round, config, llm, classes)
    raise ValueError(f"unknown kind of perturbation: {config.kind}")
