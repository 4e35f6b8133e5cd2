"""The verb `show`: print one record after each step of the pipeline, with the changes of each step marked."""

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
    """Return the split and the record with an id; without one, the first test row.

    Raises UserError, with a similar id, if there is none.
    """
    if id is None:
        return "test", rows.test[0]
    for split in ("train", "val", "test"):
        for record in getattr(rows, split):
            if record.id == id:
                return split, record
    known = [record.id for split in (rows.train, rows.val, rows.test) for record in split]
    raise UserError(f"id={id}: no such record among the {len(known)} selected rows{did_you_mean(id, known)}")


def condition_named(name: str, config: Config, rows: Rows) -> Condition:
    """Return the condition of the test or validation panel with a name. Raises UserError if there is none."""
    known = {
        str(condition): condition
        for panel in (validation_conditions, evaluation_conditions)
        for condition in panel(config.robustness, rows.modalities)
    }
    if name not in known:
        raise UserError(f"condition={name}: unknown condition; give one of {', '.join(known)}")
    return known[name]


def _round(text: str, config: Config) -> int:
    if not text.isdecimal() or int(text) >= config.perturbation.rounds:
        raise UserError(f"round={text}: give a number from 0 to {config.perturbation.rounds - 1}")
    return int(text)


def format_record(record: Record) -> str:
    """Return the content of a record, one line per modality; of an image only its size."""
    return "\n".join(f"{name}: {REGISTRY[name].format_value(getattr(record, name))}" for name in record.present)


def steps(trace: Trace) -> list[tuple[str, str | None, str]]:
    """Return name, text before and text after of each step; the text before is None if there is nothing to compare."""
    aligned, described = trace.aligned, trace.described
    result = [("raw", None, format_record(trace.record))]
    if trace.corrupted is not trace.record:
        result.append(
            ("corrupted (changes of pixels are not shown)", format_record(trace.record), format_record(trace.corrupted))
        )
    result.append(("described", None, lines(described)))
    if aligned.styled != described:
        result.append(("styled", lines(described), lines(aligned.styled)))
    if aligned.parts != aligned.styled:
        result.append(("aligned", None, lines(aligned.parts)))
        result += [
            (
                f"  {stage}: flags {', '.join(answer.flags) or 'none'}, {answer.attempts} draws"
                f"{', fallback' if answer.fallback else ''}",
                None,
                answer.text,
            )
            for stage, answer in aligned.answers.items()
        ]
    if trace.perturbed is not None:
        result.append(("perturbed", join_parts(aligned.parts), join_parts(trace.perturbed)))
    result.append(("composed", None, " ".join(compose(trace.parts))))
    return result


def lines(parts: Parts) -> str:
    """Return the parts, one per line, with their names."""
    return "\n".join(f"{name}: {text}" for name, text in parts)


STYLES = {"equal": "", "delete": "red strike", "insert": "green underline"}


def marked(before: str, after: str) -> Text:
    """Return the text after, with removed words struck out and added words underlined."""
    text = Text()
    for kind, words in word_diff(before, after):
        text.append(words, style=STYLES[kind])
        text.append(" ")
    return text
