"""The verb `prepare`: generate and store every text that training and evaluation read."""

import re

from rich.console import Console

from ..config.compose import check_complete, parse_bool
from ..config.schema import Config
from ..errors import UserError
from ..experiments.prepare import dry_run, prepare


def run(config: Config, args: dict[str, str]) -> None:
    """Generate the texts that the store lacks, or one shard of them; with dry_run=true print the estimated cost."""
    check_complete(config)
    is_dry = parse_bool(args, "dry_run", False)
    shard = _shard(args.get("shard", "0/1"))
    console = Console(highlight=False)
    if is_dry:
        console.print(dry_run(config, shard))
        return
    usage = prepare(config, shard)
    console.print(
        f"{usage.texts.total()} texts: {usage.calls.total()} generated, {usage.hits.total()} from the store, "
        f"{usage.fallbacks.total()} fallbacks. Store: {config.store.path}"
    )


def _shard(text: str) -> tuple[int, int]:
    """Return (index, count) of `i/n`, with i from 0 to n-1."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = map(int, match.groups()) if match else (0, 0)
    if not index < count:
        raise UserError(f"shard={text}: give i/n with i from 0 to n-1, such as shard=0/4")
    return index, count
