"""An attack at test time: a language model rewrites texts so that the attacked model changes its answers.

After PromptAttack (Xu et al. 2023, arXiv 2310.13345): the prompt contains the model's answer and asks for a rewriting
that changes the answer and keeps the meaning. Rewritings that fail a fidelity filter are not used. The instructions
differ from those of training. Unlike PromptAttack, the target is the model's own clean answer, not the true one, which
the prompt never contains.
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
"""Minimum share of a part's content words that a rewriting keeps; PromptAttack also bounds the changed words."""
TEMPERATURE = 1.0
"""Sampling temperature of the rewriting."""


def attack(reader, clean: Prediction, pipeline: Pipeline, target: Target, draws: int) -> tuple[Prediction, dict]:
    """Return the answers for the attacked texts, in the order of the clean ones, and the attack's part of run.json.

    `reader` is a Predictor with `read`, and `clean` is its prediction under the clean condition. The attacked text of
    a row is the first faithful draw that changes the answer; else the faithful draw under which the clean answer has
    the lowest probability; else the clean text. Rows whose answer has changed are not rewritten again.
    """
    traces, attacked_traces = clean.traces, list(clean.traces)
    lowest = [float("inf")] * len(traces)
    pending = [index for index, trace in enumerate(traces) if trace.parts]
    requests = faithful = reads = 0
    for draw in range(draws):
        rewritten = _rewritten(
            [traces[index] for index in pending], [clean.answers[index] for index in pending], draw, pipeline
        )
        requests += sum(len(traces[index].parts) for index in pending)
        faithful += sum(count for _, count in rewritten)
        candidates = [(index, trace) for index, (trace, count) in zip(pending, rewritten, strict=True) if count]
        if not candidates:
            continue
        reads += len(candidates)
        prediction = reader.read([trace for _, trace in candidates])
        for (index, trace), answer, probabilities in zip(
            candidates, prediction.answers, prediction.probabilities, strict=True
        ):
            clean_answer = clean.answers[index]
            is_changed = answer != clean_answer
            probability = -1.0 if is_changed else float(probabilities[target.classes.index(clean_answer)])
            if probability < lowest[index]:
                lowest[index], attacked_traces[index] = probability, trace
        pending = [index for index in pending if lowest[index] >= 0]
    attacked = reader.read(attacked_traces)
    right = [index for index, trace in enumerate(traces) if clean.answers[index] == trace.record.target]
    lost = sum(attacked.answers[index] != clean.answers[index] for index in right)
    return attacked, {
        "draws": draws,
        "clean_right": len(right),
        "success_rate": lost / len(right) if right else None,
        "requests": requests,
        "reads": reads,
        "unfaithful": 1 - faithful / requests if requests else None,
    }


def _rewritten(
    traces: Sequence[Trace], answers: Sequence[str], draw: int, pipeline: Pipeline
) -> list[tuple[Trace, int]]:
    """Return each trace with rewritten parts, and the number of rewritten parts; a part that fails the filter is kept.

    Parts are rewritten one by one, so that the attacked text has the parts that the reader was trained on.
    """
    tasks = [
        _task(trace.record.id, name, text, answer, draw, pipeline)
        for trace, answer in zip(traces, answers, strict=True)
        for name, text in trace.parts
    ]
    results = iter(pipeline.llm.ask(tasks, 1))
    rewritten = []
    for trace in traces:
        pieces = [(name, next(results)) for name, _ in trace.parts]
        parts = tuple((name, piece.text) for name, piece in pieces)
        rewritten.append((replace(trace, perturbed=parts), sum(not piece.fallback for _, piece in pieces)))
    return rewritten


def _task(id: str, name: str, text: str, answer: str, draw: int, pipeline: Pipeline) -> GenerationTask:
    """Return the request for one part in one draw; each part goes through the instructions in its own random order."""
    choices = instructions("attack")
    instruction = choices[seeded("attack", id, name).permutation(len(choices))[draw % len(choices)]]
    gate = Gate(shortest=0.5, longest=1.6, facts=FACTS, changed=True, classes=pipeline.task.classes)
    messages = (
        ("system", prompt("attacker", question=pipeline.task.question)),
        ("user", f"{as_data(text)}\nThe reader's answer is: {answer}. {instruction}"),
    )
    # A multiple of 32, so that texts of similar length share the parameters of the store's key.
    tokens = -(-(2 * len(text.split()) + 30) // 32) * 32
    request = Request("attack", messages, TEMPERATURE, tokens, round=draw)
    return GenerationTask(request, lambda out, end: gate.flags(out, text, end), text)
