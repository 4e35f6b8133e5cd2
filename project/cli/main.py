"""The command line: python -m project <verb> key=value ...; the console script `tcr` is the same."""

import importlib
import sys
from dataclasses import dataclass, field

from project.config.compose import load_config, run_config, to_yaml
from project.config.reference import help_text
from project.errors import UserError, did_you_mean
from project.runtime.signals import EXIT_CODE, Interrupted, handle_stop_signals, raise_interrupted

RUN = "a run folder, which then gives the configuration"


@dataclass(frozen=True)
class Verb:
    """A command: its one line of help, its arguments in addition to the configuration's keys, and its words.

    `words` describes the arguments without an =; "" allows none. A verb with `many` configurations gets the key=value
    arguments as they are, in place of a configuration.
    """

    help: str
    arguments: dict[str, str] = field(default_factory=dict)
    words: str = ""
    many: bool = False


# A verb is run(config, args) of the module project.cli.<verb>, which is imported when it is called.
VERBS = {
    "validate": Verb(
        "check the configuration, the rows, the images, the models and the disk, without running anything",
        {
            "models": "false skips the checks of the language model, the encoder and the captioner",
            "sweep": "a sweep file; only this file is checked",
        },
    ),
    "prepare": Verb(
        "generate and store every text that training and evaluation read",
        {
            "dry_run": "true only prints the calls, tokens, time and money for the texts that the store lacks",
            "shard": "i/n generates only part i of n, with i from 0 to n-1",
        },
    ),
    "train": Verb(
        "train a run, then evaluate it and write its results; resumes an interrupted run",
        {"evaluate": "false stops after training: run.json has the validation scores, and no test row is predicted"},
    ),
    "evaluate": Verb(
        "evaluate a trained run, or evaluate it again, also with other conditions or another language model",
        {
            "run": f"{RUN}; robustness.<key> changes the evaluation; llm=<option> reads the texts of that model, and "
            "writes to a copy of the run, <name>@<model>"
        },
    ),
    "predict": Verb(
        "answer for the rows of a file with a trained run",
        {
            "run": RUN,
            "input": "a CSV, TSV, JSONL or Parquet file with the run's input columns (for emoji, petfinder, airbnb and "
            "avito: image, text, and the names of the table that show prints); images must be in the file's folder",
            "output": "a new .parquet, .csv or .tsv file: the input's columns, then prediction, p_<class>, read (the "
            "text that the model read), explanation, llm_prediction, and problem (why a row has no answer)",
        },
    ),
    "export": Verb(
        "write the transformer of a run for transformers or peft: weights, tokenizer and a model card",
        {
            "run": RUN,
            "output": "a new folder",
            "adapter": "true writes only the adapter and the head, as peft loads them",
        },
    ),
    "study": Verb(
        "train all runs of a study file, then write the report; resumes an interrupted study",
        {
            "dry_run": "true prints the runs, which of them are finished, and the estimated hours of the others",
            "hours": "compute budget over all calls, in place of the file's",
            "tier": "one tier, or several separated by commas; all tiers by default",
        },
        words="a study file, such as conf/study/emoji.yaml; key=value overrides its settings",
        many=True,
    ),
    "sweep": Verb(
        "train the trials of a W&B sweep file without a W&B server; workers with the same command share the trials",
        {"trials": "number of trials over all workers; a grid has all of its points by default"},
        words="a sweep file, such as conf/sweep/lora.yaml; key=value overrides its settings",
        many=True,
    ),
    "analyse": Verb(
        "measure the texts of finished runs: collapse, recovery of removed information, quality of perturbations",
        words="run folders or globs of them; by default the first seed of each run of the experiment",
    ),
    "report": Verb(
        "compare finished runs: tables, figures and an HTML page",
        {"log": "true also logs the tables and the curves to W&B, as a separate run"},
        words="run folders or quoted globs such as 'outputs/**/seed-*'; by default the runs of the experiment",
    ),
    "store": Verb(
        "list, check and maintain the stored generations",
        {
            "into": "merge: the store to add to",
            "output": "export: a new folder",
            "idle": "ls, seal, verify: minutes without a change after which another host's journal counts as left; "
            "default 60",
        },
        words="ls | stats | verify | seal | compact | merge | export, then a folder; store.path by default",
    ),
    "show": Verb(
        "print one record after each step of the pipeline, from its source to the text that the model reads",
        {
            "run": RUN,
            "id": "id of the record; the first test row by default",
            "condition": "a condition of the evaluation; clean by default",
            "round": "a round of the perturbation; without it the text is not perturbed",
        },
    ),
}
FLAGS = ("--help", "-h", "--print-config")


def main(argv: list[str] | None = None) -> int:
    """Run one verb and return the exit code: 0, 2 for a user error, 130 after Ctrl-C, 75 after a stop signal."""
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
        print(f"stopped on request; {str(error) or 'run the same command to resume'}", file=sys.stderr)
        return EXIT_CODE


def usage() -> str:
    """Return the list of verbs, one per line."""
    lines = [f"  {name:<10}{verb.help}" for name, verb in VERBS.items()]
    return "\n".join(
        [
            "usage: python -m project <verb> key=value ...",
            "",
            *lines,
            "",
            "  <verb> --help          its arguments, and all keys with their types, defaults and meanings",
            "  <verb> --print-config  the resolved configuration",
        ]
    )


def _dispatch(argv: list[str]) -> int:
    words = [arg for arg in argv if arg not in FLAGS]
    flags = set(argv) & set(FLAGS)
    if not words:
        print(usage())
        return 0
    name, *settings = words
    if name not in VERBS:
        raise UserError(f"unknown verb {name}; the verbs are {', '.join(VERBS)}{did_you_mean(name, VERBS)}")
    verb = VERBS[name]
    if flags & {"--help", "-h"}:
        arguments = "".join(f"  {key}\n      {text}\n" for key, text in verb.arguments.items())
        words = f"  {verb.words}\n" if verb.words else ""
        print(f"python -m project {name} key=value ...: {verb.help}\n{words}{arguments}\n{help_text()}")
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
    if "--print-config" in flags:
        if verb.many:
            raise UserError(f"{name} has many configurations; each run folder keeps its own")
        print(to_yaml(config), end="")
        return 0
    return importlib.import_module(f"project.cli.{name}").run(config, args) or 0
