"""prepare: fill the store with every text that a run will ask for, before or instead of training."""

from rich.console import Console

from .config import require
from .errors import UserError
from .llm import open_llm
from .pipeline import Pipeline, Task
from .robustness.conditions import test_conditions, validation_conditions
from .schema import Config
from .sources import Rows, read_rows

BLOCK = 8
"""Rows that are taken through all conditions together, so that a broken-off recording is of use."""


def run(config: Config, args: dict[str, str]) -> None:
    """Generate what the store lacks; with dry_run=true only tell what it would cost."""
    require(config)
    dry = args.get("dry_run", "false").lower()
    if dry not in ("true", "false"):
        raise UserError(f"dry_run={dry}: give true or false")
    console = Console()
    rows = read_rows(config.data)
    llm = open_llm(config, dry=dry == "true")
    with llm.store:
        fill(Pipeline(config, Task(config.data.question, rows.classes), llm.store, llm, rows.train), rows)
    usage = llm.usage
    if dry == "true":
        told = ", ".join(f"{count} {stage}" for stage, count in sorted(usage.calls.items())) or "nothing"
        console.print(f"{usage.calls.total()} calls to generate ({told}), besides redraws; {usage.hits.total()} texts "
                      f"are in the store. About {llm.planned_tokens['prompt']:,} prompt and "
                      f"{llm.planned_tokens['completion']:,} completion tokens{_seconds(llm)}.", highlight=False)
        return
    console.print(f"{usage.texts.total()} texts: {usage.calls.total()} generated, {usage.hits.total()} from the store, "
                  f"{usage.fallbacks.total()} fallbacks. Store: {config.store.path}", highlight=False)


def _seconds(llm) -> str:
    """What the planned calls will take at the pace of the model's stored generations, if there are any."""
    known = [row for row in llm.store.rows() if row.model == llm.name and row.seconds > 0]
    if not known:
        return ""
    pace = sum(row.seconds for row in known) / len(known)
    return f", about {llm.usage.calls.total() * pace / 60:.0f} minutes at {pace:.1f} s a call as stored"


def fill(pipeline: Pipeline, rows: Rows) -> None:
    """Ask for every text of a run: validation, training, then the test rows, block by block."""
    config = pipeline.config
    for condition in validation_conditions(config.robustness):
        pipeline.inferred(rows.val, condition)
    rounds = range(config.perturbation.rounds) if config.perturbation.weight else ()
    for start in range(0, len(rows.train), BLOCK):
        traces = pipeline.clean(rows.train[start : start + BLOCK])
        for round in rounds:
            pipeline.perturbed(traces, round)
    for start in range(0, len(rows.test), BLOCK):
        for condition in test_conditions(config.robustness):
            pipeline.inferred(rows.test[start : start + BLOCK], condition)
