"""The verb `study`: train all runs of a study file."""

from pathlib import Path

from ..config.compose import parse_bool
from ..errors import UserError
from ..experiments.study import print_study, run_study
from ..experiments.study_file import read_study


def run(settings: list[str], args: dict) -> int:
    """Train the unfinished runs of the study file, then write the report; return 1 if a run failed, else 0.

    Raises UserError if the file is wrong or another process runs the study, and KeyboardInterrupt on Ctrl-C.
    """
    words = args.get("words", [])
    if len(words) != 1:
        raise UserError("study: name one study file, such as conf/study/emoji.yaml")
    tiers = args["tier"].split(",") if "tier" in args else None
    study = read_study(Path(words[0]), settings, tiers)
    hours = _hours(args["hours"]) if "hours" in args else study.hours
    if parse_bool(args, "dry_run", False):
        print_study(study, hours)
        return 0
    return int(run_study(study, hours) > 0)


def _hours(text: str) -> float:
    try:
        hours = float(text)
    except ValueError:
        hours = -1.0
    if not 0 <= hours < float("inf"):
        raise UserError(f"hours={text}: give a number, 0 or more")
    return hours
