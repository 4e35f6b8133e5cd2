"""Adversarial prompting: a language model rewrites a text by an instruction drawn from a fixed set.

Random perturbation draws from the set `paraphrase`, instruction-based perturbation from `noise`, `drop` and `permute`.
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
"""The sets of instructions of each kind of perturbation."""


def instruction_sets(config: PerturbationConfig) -> dict[str, list[str]]:
    """Return the instructions of the configured kind by set; empty if it needs no language model.

    Raises UserError if a set has fewer than perturbation.prompts instructions.
    """
    sets = {}
    for name in INSTRUCTION_KINDS.get(config.kind, ()):
        path = name if config.instruction_set == "full" else f"{config.instruction_set}/{name}"
        lines = instructions(path)
        if len(lines) < config.prompts:
            raise UserError(
                f"perturbation.prompts={config.prompts}: conf/prompts/{path}.txt has {len(lines)} instructions; add "
                "some, or lower perturbation.prompts"
            )
        sets[name] = lines[: config.prompts]
    return sets


def draw_instruction(id: str, part: str, round: int, sets: dict[str, list[str]]) -> tuple[str, str]:
    """Return the set and the instruction of a part in a round; all sets have equal probability."""
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
    """Return each record's text, rewritten by the language model.

    Aligned texts are rewritten as one passage, named perturbed. Descriptions are rewritten one by one and keep their
    names, because alignment reads them next. If every draw fails the checks, the rules perturb the text.
    """
    sets = instruction_sets(config)
    units = [rewritten_units(parts, config) for parts in texts]
    tasks = [
        _rewriting_task(id, name, text, round, config, sets, classes)
        for id, parts in zip(ids, units, strict=True)
        for name, text in parts
    ]
    answers = iter(llm.ask(tasks, config.attempts))
    return [tuple((name, next(answers).text) for name, _ in parts) for parts in units]


def rewritten_units(parts: Parts, config: PerturbationConfig) -> Parts:
    """Return the units of a text, each rewritten by one request: its parts, or one joined passage."""
    return parts if config.stage == "described" else ((("perturbed", join_parts(parts)),) if parts else ())


def rules_fallback(id: str, part: str, text: str, round: int, config: PerturbationConfig) -> str:
    """Return the fallback of a unit: its text perturbed by the rules."""
    return join_parts(apply_rules(((part, text),), config.level, id, round)) or text


def _rewriting_task(
    id: str,
    part: str,
    text: str,
    round: int,
    config: PerturbationConfig,
    sets: dict[str, list[str]],
    classes: tuple[str, ...],
) -> GenerationTask:
    name, instruction = draw_instruction(id, part, round, sets)
    # The instructions of noise and drop may shorten the text.
    gate = Gate(shortest=0.3 if name in ("paraphrase", "permute") else 0.1, longest=1.6, changed=True, classes=classes)
    # The instruction is last: small models follow it better there, and the passages share no prefix.
    messages = (("system", prompt("perturb")), ("user", f"{as_data(text)}\n{instruction}"))
    # A multiple of 32, so that texts of similar length share one max_tokens, which is part of the store key.
    tokens = -(-(2 * len(text.split()) + 30) // 32) * 32
    request = Request("perturb", messages, config.temperature, tokens, round=round)
    fallback = rules_fallback(id, part, text, round, config)
    return GenerationTask(request, lambda out, end: gate.flags(out, text, end), fallback)
