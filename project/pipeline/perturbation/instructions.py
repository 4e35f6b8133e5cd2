"""Adversarial prompting: a language model rewrites a text under an instruction drawn from a frozen set.

Random perturbation is the set `paraphrase`; instruction-based perturbation draws from `noise`, `drop` and `permute`.
"""

from collections.abc import Sequence

from ...config.prompts import as_data, instructions, prompt
from ...config.schema import PerturbationConfig
from ...data.record import seeded
from ...errors import UserError
from ...llm.client import GenerationTask, LanguageModel
from ...llm.protocol import Request
from ...llm.quality_gate import Gate
from ..alignment import Parts, join_parts
from .rules import apply_rules

INSTRUCTION_KINDS = {
    "paraphrase": ("paraphrase",),
    "instructions": ("noise", "drop", "permute"),
    "all": ("paraphrase", "noise", "drop", "permute"),
}
"""The sets of instructions that a kind of perturbation draws from."""


def instruction_sets(config: PerturbationConfig) -> dict[str, list[str]]:
    """The sets that the configured kind draws from, by name; none where it asks no language model.

    Raises UserError where a set has fewer instructions than are wanted.
    """
    sets = {}
    for name in INSTRUCTION_KINDS.get(config.kind, ()):
        path = name if config.instruction_set == "full" else f"{config.instruction_set}/{name}"
        there = instructions(path)
        if len(there) < config.prompts:
            raise UserError(
                f"perturbation.prompts={config.prompts}: conf/prompts/{path}.txt has {len(there)} "
                "instructions; add some, or take fewer"
            )
        sets[name] = there[: config.prompts]
    return sets


def drawn(id: str, part: str, round: int, sets: dict[str, list[str]]) -> tuple[str, str]:
    """The set and the instruction that this record's part gets in this round: each set equally often."""
    rng = seeded("perturbation", id, part, round)
    name = str(rng.choice(list(sets)))
    return name, str(rng.choice(sets[name]))


def rewrite(
    ids: Sequence[str],
    texts: Sequence[Parts],
    round: int,
    config: PerturbationConfig,
    llm: LanguageModel,
    classes: tuple[str, ...],
) -> list[Parts]:
    """Each record's text as the language model rewrote it.

    Aligned texts are rewritten as one passage, named perturbed. Descriptions are rewritten one by one and keep their
    names, since alignment reads them next. Where every draw fails the checks, the rules perturb the text instead.
    """
    sets = instruction_sets(config)
    rewritten = [units(parts, config) for parts in texts]
    questions = [
        _question(id, name, text, round, config, sets, classes)
        for id, parts in zip(ids, rewritten, strict=True)
        for name, text in parts
    ]
    answers = iter(llm.ask(questions, config.attempts))
    return [tuple((name, next(answers).text) for name, _ in parts) for parts in rewritten]


def units(parts: Parts, config: PerturbationConfig) -> Parts:
    """What of a text is rewritten, each piece by a request of its own."""
    return parts if config.stage == "described" else ((("perturbed", join_parts(parts)),) if parts else ())


def fallback(id: str, part: str, text: str, round: int, config: PerturbationConfig) -> str:
    """What stands in for the rewriting of a piece where every draw fails: what the rules make of it."""
    return join_parts(apply_rules(((part, text),), config.level, id, round)) or text


def _question(
    id: str,
    part: str,
    text: str,
    round: int,
    config: PerturbationConfig,
    sets: dict[str, list[str]],
    classes: tuple[str, ...],
) -> GenerationTask:
    name, instruction = drawn(id, part, round, sets)
    # Dropping is what some instructions ask for, so a short answer is no fault there.
    gate = Gate(shortest=0.3 if name in ("paraphrase", "permute") else 0.1, longest=1.6, changed=True, classes=classes)
    # The instruction comes last: small models follow it better there, and the passages share no prefix anyway.
    messages = (("system", prompt("perturb")), ("user", f"{as_data(text)}\n{instruction}"))
    # A multiple of 32, so that texts of nearly equal length share the parameters that stand in the key.
    tokens = -(-(2 * len(text.split()) + 30) // 32) * 32
    request = Request("perturb", messages, config.temperature, tokens, round=round)
    return GenerationTask(request, lambda out, end: gate.flags(out, text, end), fallback(id, part, text, round, config))
