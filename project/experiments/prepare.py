"""Fill the store with every text that training and evaluation read, before or instead of training.

The requests of an attack at test time depend on the answers of the trained model, so they cannot be prepared.
"""

import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from ..config.compose import check_complete
from ..config.run_identity import run_folder
from ..config.schema import Config
from ..corruption.conditions import evaluation_conditions, validation_conditions
from ..data.rows import Rows, read_rows
from ..llm.client import LanguageModel, Usage
from ..llm.factory import concurrency, open_llm
from ..llm.store.maintenance import seal_dead
from ..methods.base import UNTRAINED, method_of
from ..pipeline.pipeline import Pipeline, open_pipeline
from ..runtime.progress import progress_bar

BLOCK_ROWS = 8
"""Rows per concurrent request that go through all conditions together. Few, so that an interrupted recording is
usable; many enough that the engine seldom idles at the end of a stage."""
_IDLE_MINUTES = 60.0
"""Minutes without a change after which a journal of another host counts as abandoned."""


def prepare(config: Config, shard: tuple[int, int] = (0, 1)) -> Usage:
    """Generate the texts that the store lacks, and return the counts of texts, calls and tokens.

    `shard` is (index, count): only that part of the missing texts is generated.
    """
    check_complete(config)
    for journal in seal_dead(Path(config.store.path), _IDLE_MINUTES)[0]:
        Console().print(f"took over {journal}", highlight=False)
    rows = read_rows(config.data)
    llm = open_llm(config, share=shard)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        with progress_bar() as bar:
            task = bar.add_task("texts", total=_steps(config, rows))
            start = time.monotonic()
            llm.watch = lambda: bar.update(task, description=_pace(llm, time.monotonic() - start))
            fill(pipeline, rows, BLOCK_ROWS * concurrency(config) * shard[1], partial(bar.advance, task))
    return llm.usage


def dry_run(config: Config, shard: tuple[int, int] = (0, 1)) -> str:
    """Return the estimated calls, tokens, time and money of `prepare`, without a call."""
    check_complete(config)
    rows = read_rows(config.data)
    llm = open_llm(config, dry=True, share=shard)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        fill(pipeline, rows, BLOCK_ROWS * concurrency(config) * shard[1], lambda count: None)
        return estimate(config, llm)


def _steps(config: Config, rows: Rows) -> int:
    """Return the total that `fill` reports: one per row and condition or round."""
    views = 1 + (config.perturbation.rounds if config.perturbation.weight else 0)
    panels = [(rows.val, validation_conditions), (rows.test, evaluation_conditions)]
    test_steps = sum(len(records) * len(panel(config.robustness, rows.modalities)) for records, panel in panels)
    return test_steps + (0 if config.model.kind in UNTRAINED else len(rows.train) * views)


def _pace(llm: LanguageModel, seconds: float) -> str:
    """Return calls, calls/s, tokens/s and the share of cache hits as a line for the progress bar."""
    usage, calls = llm.usage, llm.usage.calls.total()
    return (
        f"{calls} calls, {calls / seconds:.1f}/s, {usage.new_completion_tokens / seconds:.0f} tokens/s, "
        f"{usage.hits.total() / max(1, usage.texts.total()):.0%} hits"
    )


def fill(pipeline: Pipeline, rows: Rows, block: int, advance: Callable[[int], None]) -> None:
    """Generate every text of a run, `block` rows at a time: validation, training, then test rows.

    Zero-shot methods need no training texts and build their own requests. `advance` is called with the number of
    texts after each step.
    """
    config = pipeline.config
    rounds = range(config.perturbation.rounds) if config.perturbation.weight else ()
    untrained = config.model.kind in UNTRAINED
    generate = method_of(config).load(config, run_folder(config), pipeline, rows) if untrained else pipeline.transform

    def fill_conditions(records, conditions):
        for start in range(0, len(records), block):
            batch = records[start : start + block]
            for condition in conditions:
                generate(batch, condition)
                advance(len(batch))

    fill_conditions(rows.val, validation_conditions(config.robustness, rows.modalities))
    for start in range(0, 0 if untrained else len(rows.train), block):
        traces = pipeline.clean(rows.train[start : start + block])
        advance(len(traces))
        for round in rounds:
            advance(len(pipeline.perturbed(traces, round)))
    fill_conditions(rows.test, evaluation_conditions(config.robustness, rows.modalities))


def estimate(config: Config, llm: LanguageModel) -> str:
    """Return the cost of the planned calls, estimated from the averages of the model's stored generations.

    Without stored generations, a token counts as four characters, and a completion as half of its maximum length.
    """
    pace, planned = llm.store.mean_costs(llm.name), llm.planned.values()
    calls = Counter(request.stage for request in planned)
    prompt = completion = seconds = 0.0
    for request in planned:
        averages = pace.get(request.stage)
        prompt += averages[0] if averages else sum(len(content) for _, content in request.messages) / 4
        completion += averages[1] if averages else request.max_tokens / 2
        seconds += averages[2] if averages else 0
    stages = ", ".join(f"{count} {stage}" for stage, count in sorted(calls.items())) or "nothing"
    lines = [
        f"{len(planned)} calls to generate ({stages}), without redraws; {llm.usage.hits.total()} texts are in the "
        f"store. About {prompt:,.0f} prompt and {completion:,.0f} completion tokens."
    ]
    unknown = sorted(set(calls) - set(pace))
    if any(request.images and request.stage in unknown for request in planned):
        lines.append("The prompt tokens of pictures depend on the model and are not included.")
    if unknown:
        lines.append(
            f"Time: unknown, because the store has no generation of this model for {', '.join(unknown)}; prepare a "
            "few rows first, with data.limit=20."
        )
    elif calls:
        lines.append(f"Time: about {seconds / 60:.0f} min, at {seconds / len(planned):.1f} s per request so far.")
    prices = getattr(config.llm, "price_prompt", 0.0), getattr(config.llm, "price_completion", 0.0)
    if any(prices):
        lines.append(
            f"Money: about {(prompt * prices[0] + completion * prices[1]) / 1e6:,.2f}, in the currency of "
            "llm.price_prompt and llm.price_completion."
        )
    else:
        lines.append(
            "Money: none; set prices with llm.price_prompt and llm.price_completion."
            if hasattr(config.llm, "price_prompt")
            else "Money: none, the model runs here."
        )
    return "\n".join(lines)
