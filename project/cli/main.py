"""The command line: python -m project <verb> key=value ...; the console script `tcr` is the same."""

import importlib
import sys
from dataclasses import dataclass, field

from project.config.compose import load_config, run_config, to_yaml
from project.config.reference import help_text
from project.errors import UserError, did_you_mean
from project.runtime.signals import EXIT_CODE, Interrupted, handle_stop_signals, raise_interrupted

RUN = "a run folder; the configuration then comes from it"


@dataclass(frozen=True)
class Verb:
    """A command: its one line of help, its own arguments beside those of the configuration, and its words.

    `words` says what may stand on the command line without an =; "" allows none. A verb of `many` configurations gets
    the key=value arguments in place of a configuration.
    """

    help: str
    arguments: dict[str, str] = field(default_factory=dict)
    words: str = ""
    many: bool = False


# The verb x is run(config, args) of the module project.x, imported when it is called.
VERBS = {
    "validate": Verb(
        "check the configuration, the rows, the images, the models and the disk, without running anything",
        {
            "models": "false leaves the language model, the encoder and the captioner unlooked-at",
            "sweep": "a sweep file, which alone is then looked at",
        },
    ),
    "prepare": Verb(
        "make and store every text that training and evaluation read",
        {
            "dry_run": "true tells calls, tokens, time and money for what the store lacks, and makes none",
            "shard": "i/n makes the part i of n, by key; i is from 0 to n-1",
        },
    ),
    "train": Verb(
        "train, then evaluate and write the results",
        {"evaluate": "false stops after training: no test row is predicted, and run.json has the validation scores"},
    ),
    "evaluate": Verb(
        "evaluate a trained run, or again, or on the texts of another language model",
        {
            "run": f"{RUN}; robustness.<key> beside it tests otherwise than before; llm=<option> reads that model's "
            "texts, and writes to a copy, <name>@<model>"
        },
    ),
    "predict": Verb(
        "answer for new rows with a trained run",
        {
            "run": RUN,
            "input": "a CSV, TSV, JSONL or Parquet with the run's input columns (for emoji, petfinder, airbnb and "
            "avito: image, text, and the table's names as show prints them); image paths stay in its folder",
            "output": "a new .parquet, .csv or .tsv: the input's columns, then prediction, p_<class>, the text that is "
            "read, explanation, llm_prediction, and problem, why a row has no answer",
        },
    ),
    "export": Verb(
        "write a run's transformer for others: merged weights, tokenizer and a model card with its robustness",
        {
            "run": RUN,
            "output": "a new folder",
            "adapter": "true writes the adapter and head alone, as peft loads them",
        },
    ),
    "study": Verb(
        "make all runs of a study file, one after another, and the report; goes on where it was broken off",
        {
            "dry_run": "true prints the runs, which are finished, and the hours that the others will take",
            "hours": "compute to spend over all sittings, for what the file says",
            "tier": "one tier, or several with commas between them; without it, all of them",
        },
        words="a study file, such as conf/study/emoji.yaml; key=value stands over what it says",
        many=True,
    ),
    "sweep": Verb(
        "make the trials of a W&B sweep file without a W&B server; workers with the same command share them",
        {"trials": "how many the sweep has over all workers; without it, a grid has all of its own"},
        words="a sweep file, such as conf/sweep/lora.yaml; key=value stands over what it says",
        many=True,
    ),
    "analyse": Verb(
        "measure the texts of finished runs: collapse, what came back of what was removed, how good perturbations are",
        words="run folders, or patterns of them; without one, the first seed of each run of the experiment",
    ),
    "report": Verb(
        "compare finished runs: the tables, the figures and the page",
        {"log": "true logs the tables and the curves to W&B too, as a run of its own"},
        words="run folders, or quoted globs of them such as 'outputs/**/seed-*'; without one, the experiment's runs",
    ),
    "store": Verb(
        "look at, check and tend the stored generations",
        {
            "into": "merge: the store to add to",
            "output": "export: a new folder",
            "idle": "ls, seal, verify: minutes without a change after which another host's journal counts as left; 60",
        },
        words="ls | stats | verify | seal | compact | merge | export, then a folder; without one, store.path",
    ),
    "show": Verb(
        "print what becomes of one record, from its source to the text that the model reads",
        {
            "run": RUN,
            "id": "the record",
            "condition": "a condition of the evaluation, such as clean",
            "round": "a round of the perturbation",
        },
    ),
}
FLAGS = ("--help", "-h", "--print-config")


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 2 after a user's mistake, 130 after Ctrl-C, 75 when asked to stop."""
    try:
        with handle_stop_signals(raise_interrupted):
            return _dispatch(sys.argv[1:] if argv is None else argv)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as error:
        print(f"interrupted; {error}" if str(error) else "interrupted", file=sys.stderr)
        return 130
    except Interrupted as error:
        print(f"asked to stop; {str(error) or 'the same command goes on'}", file=sys.stderr)
        return EXIT_CODE


def usage() -> str:
    """The verbs, each in a line."""
    lines = [f"  {name:<10}{verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: python -m project <verb> key=value ...",
            "",
            *lines,
            "",
            "  <verb> --help          the keys, their types, defaults and meanings",
            "  <verb> --print-config  the resolved configuration",
        ]
    )


def _dispatch(argv: list[str]) -> int:
    words = [arg for arg in argv if arg not in FLAGS]
    asked = set(argv) & set(FLAGS)
    if not words:
        print(usage())
        return 0
    name, *settings = words
    if name not in VERBS:
        raise UserError(f"unknown verb {name}; the verbs are {', '.join(VERBS)}{did_you_mean(name, VERBS)}")
    verb = VERBS[name]
    if asked & {"--help", "-h"}:
        own = "".join(f"  {key}\n      {text}\n" for key, text in verb.arguments.items())
        words = f"  {verb.words}\n" if verb.words else ""
        print(f"python -m project {name} key=value ...: {verb.help}\n{words}{own}\n{help_text()}")
        return 0
    args, rest = {}, []
    for arg in settings:
        key, equals, value = arg.removeprefix("--").partition("=")
        if key in verb.arguments and equals:
            args[key] = value
        elif verb.words and not equals:
            args.setdefault("words", []).append(arg)
        else:
            rest.append(arg)
    if verb.many:
        config = rest
    else:
        config = run_config(args["run"], rest) if "run" in args else load_config(rest)
    if "--print-config" in asked:
        if verb.many:
            raise UserError(f"{name} has many configurations; each run folder keeps its own")
        print(to_yaml(config), end="")
        return 0
    return importlib.import_module(f"project.cli.{name}").run(config, args) or 0
