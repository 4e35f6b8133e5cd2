"""prepare: fill the store with every text that a run will ask for, before or instead of training.

What an attack at test time asks depends on what the trained model answers, so it cannot be asked ahead.
"""

import re
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

from rich.console import Console

from ..config.compose import check_complete, parse_bool
from ..config.run_identity import run_folder
from ..config.schema import Config
from ..corruption.conditions import evaluation_conditions, validation_conditions
from ..data.rows import Rows, read_rows
from ..errors import UserError
from ..llm.client import LanguageModel
from ..llm.factory import concurrency, open_llm
from ..llm.store.maintenance import seal_dead
from ..methods.base import UNTRAINED, method_of
from ..pipeline.pipeline import Pipeline, open_pipeline
from ..runtime.progress import progress_bar

BLOCK = 8
"""Rows, for each request that the engine answers at once, that go through all conditions together: few enough that a
broken-off recording is of use, and many enough that the engine seldom idles at the end of a stage."""
IDLE = 60.0
"""Minutes without a change after which a journal of another host counts as left behind."""


def run(config: Config, args: dict[str, str]) -> None:
    """Generate what the store lacks, or one shard of it; with dry_run=true only tell what it would cost."""
    check_complete(config)
    dry = parse_bool(args, "dry_run", False)
    share = _share(args.get("shard", "0/1"))
    console = Console()
    if not dry:
        for sealed in seal_dead(Path(config.store.path), IDLE)[0]:
            console.print(f"took over {sealed}", highlight=False)
    rows = read_rows(config.data)
    llm = open_llm(config, dry=dry, share=share)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        block = BLOCK * concurrency(config) * share[1]
        if dry:
            fill(pipeline, rows, block, lambda count: None)
            console.print(estimate(config, llm), highlight=False)
            return
        with progress_bar() as bar:
            task = bar.add_task("texts", total=_steps(config, rows))
            start = time.monotonic()
            llm.watch = lambda: bar.update(task, description=_pace(llm, time.monotonic() - start))
            fill(pipeline, rows, block, partial(bar.advance, task))
    usage = llm.usage
    console.print(
        f"{usage.texts.total()} texts: {usage.calls.total()} generated, {usage.hits.total()} from the store, "
        f"{usage.fallbacks.total()} fallbacks. Store: {config.store.path}",
        highlight=False,
    )


def _share(shard: str) -> tuple[int, int]:
    """(index, count) of `i/n`, i from 0."""
    match = re.fullmatch(r"(\d+)/(\d+)", shard)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not index < count:
        raise UserError(f"shard={shard}: give i/n with i from 0 to n-1, such as shard=0/4")
    return index, count


def _steps(config: Config, rows: Rows) -> int:
    """How often fill() advances: once for each row and condition or round."""
    views = 1 + (config.perturbation.rounds if config.perturbation.weight else 0)
    panels = [(rows.val, validation_conditions), (rows.test, evaluation_conditions)]
    inferred = sum(len(records) * len(panel(config.robustness, rows.modalities)) for records, panel in panels)
    return inferred + (0 if config.model.kind in UNTRAINED else len(rows.train) * views)


def _pace(llm: LanguageModel, seconds: float) -> str:
    """Calls, their rate, tokens/s and the share of texts that were there already."""
    usage, calls = llm.usage, llm.usage.calls.total()
    return (
        f"{calls} calls, {calls / seconds:.1f}/s, {usage.new_completion_tokens / seconds:.0f} tokens/s, "
        f"{usage.hits.total() / max(1, usage.texts.total()):.0%} hits"
    )


def fill(pipeline: Pipeline, rows: Rows, block: int, advance: Callable[[int], None]) -> None:
    """Ask for every text of a run, `block` rows at a time: validation, training, then the test rows.

    A method that learns nothing asks nothing about training rows, and what it asks about the others is its own.
    `advance` is told how many texts of rows are done.
    """
    config = pipeline.config
    rounds = range(config.perturbation.rounds) if config.perturbation.weight else ()
    untrained = config.model.kind in UNTRAINED
    asks = method_of(config).load(config, run_folder(config), pipeline, rows) if untrained else pipeline.transform

    def inferred(records, conditions):
        for start in range(0, len(records), block):
            part = records[start : start + block]
            for condition in conditions:
                asks(part, condition)
                advance(len(part))

    inferred(rows.val, validation_conditions(config.robustness, rows.modalities))
    for start in range(0, 0 if untrained else len(rows.train), block):
        traces = pipeline.clean(rows.train[start : start + block])
        advance(len(traces))
        for round in rounds:
            advance(len(pipeline.perturbed(traces, round)))
    inferred(rows.test, evaluation_conditions(config.robustness, rows.modalities))


def estimate(config: Config, llm: LanguageModel) -> str:
    """What the planned calls will cost, by the averages of the model's stored generations, where there are any.

    Without them a token is taken for four characters, and an answer for half of what it may be.
    """
    pace, planned = llm.store.mean_costs(llm.name), llm.planned.values()
    calls = Counter(request.stage for request in planned)
    prompt = written = seconds = 0.0
    for request in planned:
        known = pace.get(request.stage)
        prompt += known[0] if known else sum(len(content) for _, content in request.messages) / 4
        written += known[1] if known else request.max_tokens / 2
        seconds += known[2] if known else 0
    told = ", ".join(f"{count} {stage}" for stage, count in sorted(calls.items())) or "nothing"
    lines = [
        f"{len(planned)} calls to generate ({told}), besides redraws; {llm.usage.hits.total()} texts are in the "
        f"store. About {prompt:,.0f} prompt and {written:,.0f} completion tokens."
    ]
    unknown = sorted(set(calls) - set(pace))
    if any(request.images and request.stage in unknown for request in planned):
        lines.append("What pictures take in prompt tokens depends on the model, and is not in this.")
    if unknown:
        lines.append(
            f"Time: unknown, since the store has no generation of this model for {', '.join(unknown)}; try a "
            "few rows first, with data.limit=20."
        )
    elif calls:
        lines.append(
            f"Time: about {seconds / 60:.0f} min, at the {seconds / len(planned):.1f} s that a request took so far."
        )
    prices = getattr(config.llm, "price_prompt", 0.0), getattr(config.llm, "price_completion", 0.0)
    if any(prices):
        lines.append(
            f"Money: about {(prompt * prices[0] + written * prices[1]) / 1e6:,.2f}, in the currency of "
            "llm.price_prompt and llm.price_completion."
        )
    else:
        lines.append(
            "Money: none; a price is given with llm.price_prompt and llm.price_completion."
            if hasattr(config.llm, "price_prompt")
            else "Money: none, the model runs here."
        )
    return "\n".join(lines)
