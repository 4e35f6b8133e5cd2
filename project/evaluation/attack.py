"""An attack at test time: a language model rewrites texts against the model that reads them.

After PromptAttack (Xu et al. 2023, arXiv 2310.13345): the language model is told what the model answers, and to lead it
away from that while keeping the meaning; what does not pass a fidelity filter is not used. Its instructions are others
than those of training. Unlike PromptAttack it aims away from the model's own clean answer, and never sees the true one.
"""

from collections.abc import Sequence
from dataclasses import replace

from ..config.prompts import as_data, instructions, prompt
from ..data.record import seeded
from ..data.target import Target
from ..llm.client import GenerationTask
from ..llm.protocol import Request
from ..llm.quality_gate import Gate
from ..methods.base import Prediction
from ..pipeline.pipeline import Pipeline, Trace

FACTS = 0.7
"""Least share of a piece's content words that must come back. PromptAttack bounds the share of changed words too."""
TEMPERATURE = 1.0
"""Sampling temperature of the rewriting."""


def attack(reader, clean: Prediction, pipeline: Pipeline, target: Target, draws: int) -> tuple[Prediction, dict]:
    """The answers to the attacked texts, in the order of the clean ones, and what run.json says of the attack.

    `reader` is a Predictor with `read`, and `clean` its prediction under the clean condition. A row's attacked text is
    the first faithful draw that changes the answer; else the faithful draw that leaves that answer the least
    probability; else the clean text. A row is not asked about again once its answer has changed.
    """
    traces, chosen = clean.traces, list(clean.traces)
    least = [float("inf")] * len(traces)
    pending = [index for index, trace in enumerate(traces) if trace.parts]
    asked = kept = reads = 0
    for draw in range(draws):
        rewritten = _rewritten(
            [traces[index] for index in pending], [clean.answers[index] for index in pending], draw, pipeline
        )
        asked += sum(len(traces[index].parts) for index in pending)
        kept += sum(count for _, count in rewritten)
        tried = [(index, trace) for index, (trace, count) in zip(pending, rewritten, strict=True) if count]
        if not tried:
            continue
        reads += len(tried)
        read = reader.read([trace for _, trace in tried])
        for (index, trace), answer, shares in zip(tried, read.answers, read.probabilities, strict=True):
            before = clean.answers[index]
            probability = -1.0 if answer != before else float(shares[target.classes.index(before)])
            if probability < least[index]:
                least[index], chosen[index] = probability, trace
        pending = [index for index in pending if least[index] >= 0]
    found = reader.read(chosen)
    right = [index for index, trace in enumerate(traces) if clean.answers[index] == trace.record.target]
    lost = sum(found.answers[index] != clean.answers[index] for index in right)
    return found, {
        "draws": draws,
        "clean_right": len(right),
        "success_rate": lost / len(right) if right else None,
        "requests": asked,
        "reads": reads,
        "unfaithful": 1 - kept / asked if asked else None,
    }


def _rewritten(
    traces: Sequence[Trace], answers: Sequence[str], draw: int, pipeline: Pipeline
) -> list[tuple[Trace, int]]:
    """Each trace with its pieces rewritten, and how many of them were: what fails the filter stays as it was.

    Pieces are rewritten one by one, so that a reader loses nothing by a text in other pieces than it was trained on.
    """
    questions = [
        _question(trace.record.id, name, text, answer, draw, pipeline)
        for trace, answer in zip(traces, answers, strict=True)
        for name, text in trace.parts
    ]
    given = iter(pipeline.llm.ask(questions, 1))
    found = []
    for trace in traces:
        pieces = [(name, next(given)) for name, _ in trace.parts]
        parts = tuple((name, piece.text) for name, piece in pieces)
        found.append((replace(trace, perturbed=parts), sum(not piece.fallback for _, piece in pieces)))
    return found


def _question(id: str, name: str, text: str, answer: str, draw: int, pipeline: Pipeline) -> GenerationTask:
    """What is asked for one piece in one draw; its draws go through the instructions in an order of its own."""
    told = instructions("attack")
    instruction = told[seeded("attack", id, name).permutation(len(told))[draw % len(told)]]
    gate = Gate(shortest=0.5, longest=1.6, facts=FACTS, changed=True, classes=pipeline.task.classes)
    messages = (
        ("system", prompt("attacker", question=pipeline.task.question)),
        ("user", f"{as_data(text)}\nThe reader's answer is: {answer}. {instruction}"),
    )
    # A multiple of 32, so that texts of nearly equal length share the parameters that stand in the key.
    tokens = -(-(2 * len(text.split()) + 30) // 32) * 32
    request = Request("attack", messages, TEMPERATURE, tokens, round=draw)
    return GenerationTask(request, lambda out, end: gate.flags(out, text, end), text)
