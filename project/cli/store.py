"""The verb `store`: list, check and maintain the stored generations."""

from pathlib import Path

import pandas as pd
from rich.console import Console
from rich.table import Table

from ..config.schema import Config
from ..errors import UserError, did_you_mean
from ..llm.store.export_card import export
from ..llm.store.maintenance import compact, files, iter_unique_rows, listing, merge, seal_dead, stats, verify

ACTIONS = ("ls", "stats", "verify", "seal", "compact", "merge", "export")


def run(config: Config, args: dict) -> int:
    """Run one action on the store of the configuration, or on the folder after the action.

    Return 1 if `verify` finds damage, else 0. Raises UserError if the action is unknown or the folder does not exist.
    """
    console = Console()
    action, *folders = args.get("words") or [""]
    if action not in ACTIONS:
        raise UserError(f"store {action}: give one of {', '.join(ACTIONS)}{did_you_mean(action, ACTIONS)}")
    if len(folders) > 1 and action != "merge":
        raise UserError(f"store {action} takes one folder, not {len(folders)}: {' '.join(folders)}")
    folder = Path(folders[0] if folders else config.store.path)
    idle = _minutes(args.get("idle", "60"))
    if action != "merge":
        files(folder)  # raises UserError if the folder does not exist

    def show(text: str) -> None:
        console.print(text, highlight=False, soft_wrap=True, markup=False)

    match action:
        case "ls":
            table = listing(folder, idle)
            console.print(_printable(table))
            show(f"{folder}: {len(table)} files, {table['rows'].sum():,} rows, {table['bytes'].sum():,} bytes")
        case "stats":
            console.print(_printable(stats(iter_unique_rows(folder))))
        case "verify":
            damage, notes = verify(folder, idle)
            for line in [*notes, *damage]:
                show(line)
            show(f"{folder}: {f'{len(damage)} damaged places' if damage else 'sound'}")
            return int(bool(damage))
        case "seal":
            sealed, left = seal_dead(folder, idle)
            for line in [*(f"sealed {line}" for line in sealed), *(f"left {line}" for line in left)]:
                show(line)
            show(f"{folder}: {len(sealed)} journals sealed, {len(left)} left")
        case "compact":
            before, after, dropped = compact(folder)
            show(f"{folder}: {before} shards became {after}; {dropped} duplicate rows dropped")
        case "merge":
            if not folders or "into" not in args:
                raise UserError(
                    "store merge: give the folders to merge and the target, such as "
                    "store merge jobs/0 jobs/1 into=outputs/store"
                )
            for source in folders:
                files(Path(source))
            for source in folders:
                show(f"{source}: {merge(Path(source), Path(args['into']))} rows added to {args['into']}")
        case "export":
            if "output" not in args:
                raise UserError("store export: give output=FOLDER, a new folder")
            show(f"{args['output']}: {export(folder, Path(args['output']))} generations and their card")
    return 0


def _minutes(text: str) -> float:
    try:
        minutes = float(text)
    except ValueError:
        minutes = -1.0
    if not 0 <= minutes < float("inf"):
        raise UserError(f"idle={text}: give minutes, 0 or more")
    return minutes


def _printable(frame: pd.DataFrame) -> Table:
    table = Table()
    for name in frame.columns:
        is_number = pd.api.types.is_numeric_dtype(frame[name])
        table.add_column(name.replace("_", " "), justify="right" if is_number else "left", overflow="fold")
    for row in frame.itertuples(index=False):
        table.add_row(
            *(
                f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)
                for value in row
            )
        )
    return table
