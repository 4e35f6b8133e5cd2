"""show: one record at every arrow of the pipeline, with what each arrow changed marked."""

from rich.console import Console
from rich.text import Text

from ..config.compose import check_complete
from ..config.schema import Config
from ..corruption.conditions import CLEAN, Condition, evaluation_conditions, validation_conditions
from ..data.record import Record
from ..data.rows import Rows, read_rows
from ..errors import UserError, did_you_mean
from ..llm.factory import open_llm
from ..pipeline.alignment import Parts, join_parts
from ..pipeline.modalities import REGISTRY
from ..pipeline.pipeline import Trace, compose, open_pipeline
from ..report.text_diff import word_diff


def run(config: Config, args: dict[str, str]) -> None:
    """Print the record `id` (default: the first test row) under `condition`, and perturbed in `round`."""
    check_complete(config)
    rows = read_rows(config.data)
    split, record = find(rows, args.get("id"))
    condition = condition_named(args.get("condition", "clean"), config, rows)
    console = Console(highlight=False)
    llm = open_llm(config)
    with llm.store:
        pipeline = open_pipeline(config, rows, llm)
        if "round" in args:
            trace = pipeline.perturbed(pipeline.clean([record]), _round(args["round"], config))[0]
        elif split == "train" and condition == CLEAN:
            trace = pipeline.clean([record])[0]
        else:
            trace = pipeline.transform([record], condition)[0]
    console.print(f"[bold]{record.id}[/]  {split} row, group {record.group}, target {record.target}, {condition}")
    console.print("removed words are [red strike]struck out[/], added ones [green underline]underlined[/]\n")
    for name, before, after in steps(trace):
        console.print(f"[bold]{name}[/]")
        console.print(marked(before, after) if before is not None else Text(after or "(nothing)"))
        console.print()


def find(rows: Rows, id: str | None) -> tuple[str, Record]:
    """The split and the record with that id. Raises UserError, with near ids, where there is none."""
    if id is None:
        return "test", rows.test[0]
    for split in ("train", "val", "test"):
        for record in getattr(rows, split):
            if record.id == id:
                return split, record
    known = [record.id for split in (rows.train, rows.val, rows.test) for record in split]
    raise UserError(f"id={id}: there is no such record among the {len(known)} selected rows{did_you_mean(id, known)}")


def condition_named(name: str, config: Config, rows: Rows) -> Condition:
    """The condition of the test or the validation panel with that name. Raises UserError where there is none."""
    known = {
        str(condition): condition
        for panel in (validation_conditions, evaluation_conditions)
        for condition in panel(config.robustness, rows.modalities)
    }
    if name not in known:
        raise UserError(f"condition={name}: there is no such condition; there are {', '.join(known)}")
    return known[name]


def _round(text: str, config: Config) -> int:
    if not text.isdecimal() or int(text) >= config.perturbation.rounds:
        raise UserError(f"round={text}: give a number from 0 to {config.perturbation.rounds - 1}")
    return int(text)


def format_record(record: Record) -> str:
    """A record's own content in lines; of an image only its size, for a terminal cannot show it."""
    return "\n".join(f"{name}: {REGISTRY[name].shown(getattr(record, name))}" for name in record.present)


def steps(trace: Trace) -> list[tuple[str, str | None, str]]:
    """Name, text before and text after of each arrow; the text before is None where there is nothing to compare."""
    aligned, described = trace.aligned, trace.described
    told = [("raw", None, format_record(trace.record))]
    if trace.corrupted is not trace.record:
        told.append(
            ("corrupted (pixels change unseen here)", format_record(trace.record), format_record(trace.corrupted))
        )
    told.append(("described", None, lines(described)))
    if aligned.styled != described:
        told.append(("styled", lines(described), lines(aligned.styled)))
    if aligned.parts != aligned.styled:
        told.append(("aligned", None, lines(aligned.parts)))
        told += [
            (
                f"  {stage}: flags {', '.join(answer.flags) or 'none'}, {answer.attempts} draws"
                f"{', fallback' if answer.fallback else ''}",
                None,
                answer.text,
            )
            for stage, answer in aligned.answers.items()
        ]
    if trace.perturbed is not None:
        told.append(("perturbed", join_parts(aligned.parts), join_parts(trace.perturbed)))
    told.append(("composed", None, " ".join(compose(trace.parts))))
    return told


def lines(parts: Parts) -> str:
    """The pieces, a line each with its name."""
    return "\n".join(f"{name}: {text}" for name, text in parts)


STYLES = {"equal": "", "delete": "red strike", "insert": "green underline"}


def marked(before: str, after: str) -> Text:
    """The text after, word by word, with what went struck out and what came underlined."""
    text = Text()
    for kind, words in word_diff(before, after):
        text.append(words, style=STYLES[kind])
        text.append(" ")
    return text
