"""A study file: tiers of methods and seeds, the runs that they make, and which settings tuning has chosen."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import pandas as pd

from ..config.compose import check_complete, check_keys, load_config, read_mapping, strict_yaml, to_dict
from ..config.run_identity import flatten_keys, format_value, is_evaluation_key, run_folder, run_name
from ..config.schema import Config
from ..errors import UserError, did_you_mean, with_context
from ..evaluation.run_info import RunInfo
from ..evaluation.run_status import is_finished, is_trained
from ..methods.base import UNTRAINED
from ..metrics.scores import SCORES

KEYS = ("experiment", "hours", "folds", "overrides", "tune", "tiers")
TIER_KEYS = ("methods", "seeds", "overrides")
VARIANT_KEYS = ("name", "method", "overrides")
SET_BY_STUDY = ("experiment", "method", "name", "seed")
"""What the file alone says of a run."""
HOURS = 48.0
"""Compute that a study spends where its file says nothing."""


@dataclass(frozen=True)
class PlannedRun:
    """One call of the verb train: its key=value arguments, their configuration and what it is in words.

    A trial stops before the test rows.
    """

    label: str
    arguments: tuple[str, ...]
    config: Config
    trial: bool = False

    @property
    def folder(self) -> Path:
        """The run folder."""
        return run_folder(self.config)

    @property
    def finished(self) -> bool:
        """Whether all is there, of this configuration."""
        try:
            there = self._there()
        except UserError:
            return False
        return there and not (self.trial and self.validation is None)

    @property
    def problem(self) -> str | None:
        """Why it cannot be made: its folder holds a run of another configuration, or a trial gives no score."""
        try:
            there = self._there()
        except UserError as error:
            return str(error)
        if there and self.trial and self.validation is None:
            return (
                f"{self.folder} has no validation score to choose settings by; give {self.config.method}: {{}} "
                "under tune in the study file"
            )
        return None

    @property
    def validation(self) -> tuple[str, float] | None:
        """The metric and the best score on the validation rows, where run.json has one."""
        info = RunInfo.read(self.folder)
        return None if info.val is None else (info.metric, info.val.best_score)

    @property
    def seconds(self) -> float:
        """What the finished run says that it took."""
        return float(sum(RunInfo.read(self.folder).seconds.values()))

    def _there(self) -> bool:
        return (is_trained if self.trial else is_finished)(self.config)


@dataclass(frozen=True)
class Entry:
    """A method of a tier, in one fold where there are folds: tuned once, then run with every seed.

    `arguments` lack the name, the seed and the fold; `grid` holds the settings that are tried, in order.
    """

    tier: str
    name: str
    arguments: tuple[str, ...]
    seeds: tuple[int, ...]
    grid: tuple[tuple[str, ...], ...]
    folder: Path
    fold: int | None = None
    folds: int | None = None

    @property
    def label(self) -> str:
        """Tier, name and fold."""
        return f"{self.tier}: {self.name}" + ("" if self.fold is None else f", fold {self.fold}")

    def trials(self) -> list[PlannedRun]:
        """One run for each setting of the grid, with the first seed; named by what it is trained with, so that equal
        trials of two tiers are one."""
        runs = []
        for chosen in self.grid:
            config = _composed((*self._placed, f"name={self.name}", *chosen))
            name = run_name(
                config.method,
                {key: value for key, value in flatten_keys(to_dict(config)).items() if not is_evaluation_key(key)},
                {},
            )
            runs.append(self._run(f"trial {' '.join(chosen)}", chosen, self.seeds[0], name, "tuning", trial=True))
        return runs

    def run(self, seed: int, chosen: tuple[str, ...] = ()) -> PlannedRun:
        """The run of one seed with the settings that were chosen."""
        return self._run(f"seed {seed}", chosen, seed, self.name, None if self.fold is None else "folds")

    def whole(self, seed: int) -> Config:
        """The configuration that names the run folder of all folds together."""
        return replace(_composed((*self.arguments, f"name={self.name}")), seed=seed)

    @property
    def _placed(self) -> tuple[str, ...]:
        if self.fold is None:
            return self.arguments
        return *self.arguments, f"data.split.test={1 / self.folds}", f"data.split.fold={self.fold}"

    def _run(
        self, what: str, chosen: tuple[str, ...], seed: int, name: str, part: str | None, trial: bool = False
    ) -> PlannedRun:
        """A run in `part` of the study's folder, or among all other runs.

        To compose a configuration takes a tenth of a second: those that differ in seed, name and folder share one.
        """
        config = _composed((*self._placed, f"name={self.name}", *chosen))
        output = config.output
        if part:
            output = str(self.folder / part / ("" if self.fold is None else f"fold-{self.fold}"))
        arguments = (*self._placed, *chosen, f"seed={seed}", f"name={name}", f"output={output}")
        return PlannedRun(
            f"{self.label}, {what}", arguments, replace(config, seed=seed, name=name, output=output), trial
        )


@cache
def _composed(arguments: tuple[str, ...]) -> Config:
    config = load_config(list(arguments))
    check_complete(config)
    return config


@dataclass(frozen=True)
class Study:
    """What a study file says, of which `tiers` are to be run. `folder` keeps its state, its trials and its folds."""

    hours: float
    entries: list[Entry]
    tiers: tuple[str, ...]
    folder: Path

    def steps(self) -> Iterator[tuple[Entry, int]]:
        """Every entry with each of its seeds: tier by tier and seed by seed, so that what is there is balanced."""
        for tier in self.tiers:
            of_tier = [entry for entry in self.entries if entry.tier == tier]
            for seed in of_tier[0].seeds:
                yield from ((entry, seed) for entry in of_tier)


def read_study(path: Path, settings: list[str], tiers: list[str] | None = None) -> Study:
    """The study of a file, key=value `settings` over what it says; of some tiers alone where these are given.

    Every configuration is composed here. Raises UserError where one is wrong, and on a name that stands for two runs.
    """
    for setting in settings:
        if (key := setting.removeprefix("--").partition("=")[0]) in SET_BY_STUDY:
            raise UserError(f"{key} cannot be given beside a study file, which settles it")
    said = check_keys(read_mapping(path, strict_yaml), KEYS, str(path))
    for key in ("experiment", "tiers"):
        if not said.get(key):
            raise UserError(f"{path}: {key} is not set")
    entries = [
        entry
        for tier, lines in said["tiers"].items()
        for entry in _entries(path, str(tier), said, lines or {}, settings)
    ]
    _check(path, entries, said.get("tune") or {})
    there = tuple(dict.fromkeys(entry.tier for entry in entries))
    for tier in tiers or ():
        if tier not in there:
            raise UserError(f"tier={tier}: {path} has {', '.join(there)}{did_you_mean(tier, there)}")
    chosen = tuple(tier for tier in there if tier in (tiers or there))
    return Study(_hours(said.get("hours", HOURS), path), entries, chosen, entries[0].folder)


def _hours(value: object, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{path}: hours={format_value(value)} must be a number above 0")
    return float(value)


def _arguments(overrides: dict | None) -> list[str]:
    return [f"{key}={format_value(value)}" for key, value in flatten_keys(overrides or {}).items()]


def _entries(path: Path, tier: str, said: dict, lines: dict, settings: list[str]) -> list[Entry]:
    """The entries of one tier, fold by fold."""
    where = f"{path}: tier {tier}"
    lines = check_keys(lines, TIER_KEYS, where)
    seeds, folds = lines.get("seeds"), said.get("folds")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"{where}: seeds must be a list of whole numbers from 0, such as [0, 1, 2, 3, 4]")
    if folds is not None and (type(folds) is not int or folds < 2):
        raise UserError(f"{path}: folds={format_value(folds)} must be a whole number from 2")
    entries = []
    for line in lines.get("methods") or []:
        variant = check_keys({"method": line} if isinstance(line, str) else line, VARIANT_KEYS, where)
        method = variant.get("method")
        name = variant.get("name", method)
        if not name or not method:
            raise UserError(f"{where}: a method is a name of conf/method, or has the keys {', '.join(VARIANT_KEYS)}")
        arguments = [f"experiment={said['experiment']}", f"method={method}"]
        for overrides in (said.get("overrides"), lines.get("overrides"), variant.get("overrides")):
            arguments += _arguments(overrides)
        try:
            entry = Entry(tier, name, (*arguments, *settings), tuple(seeds), (), Path())
            whole = entry.whole(seeds[0])
            grid = () if whole.model.kind in UNTRAINED else _grid(said.get("tune") or {}, name, method)
            entry = replace(entry, grid=grid, folder=run_folder(whole).parent.parent / "study", folds=folds)
            copies = [entry] if folds is None else [replace(entry, fold=fold) for fold in range(folds)]
            for copy in copies:
                copy.trials()
                copy.run(seeds[0])
        except UserError as error:
            raise with_context(f"{where}, {name}", error) from error
        entries += copies
    if not entries:
        raise UserError(f"{where}: no methods")
    return sorted(entries, key=lambda entry: entry.fold or 0)


def _grid(tune: dict, name: str, method: str) -> tuple[tuple[str, ...], ...]:
    """Every combination of the values to try, for the run's name, else its method, else `default`."""
    values = flatten_keys(next((tune[key] for key in (name, method, "default") if key in tune), None) or {})
    for key, tried in values.items():
        if not isinstance(tried, list) or not tried:
            raise UserError(f"tune: {key} must be a list of values to try")
    choices = [[f"{key}={format_value(value)}" for value in tried] for key, tried in values.items()]
    return tuple(itertools.product(*choices)) if choices else ()


def _check(path: Path, entries: list[Entry], tune: dict) -> None:
    """Refuse grids of unequal size, a grid for nobody, and a run folder that stands for two configurations."""
    sizes = {entry.name: len(entry.grid) for entry in entries if entry.grid}
    if len(set(sizes.values())) > 1:
        told = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"{path}: tune: every trained method gets as many trials as the others, and not {told}")
    names = {
        "default",
        *(entry.name for entry in entries),
        *(argument.removeprefix("method=") for entry in entries for argument in entry.arguments),
    }
    for key in tune:
        if key not in names:
            raise UserError(f"{path}: tune: no tier has {key}{did_you_mean(key, names)}")
    places: dict[Path, Entry] = {}
    for entry in entries:
        folder = entry.run(entry.seeds[0]).folder.parent
        other = places.setdefault(folder, entry)
        if (other.arguments, other.grid) != (entry.arguments, entry.grid):
            raise UserError(
                f"{path}: {folder} would hold two methods, {other.label} and {entry.label}; give one of "
                "them another name"
            )


def choice(entry: Entry) -> tuple[str, ...] | None:
    """The settings with the best validation score, the first of equal ones; None while a trial is unfinished.

    Nothing is chosen where there is nothing to choose.
    """
    if not entry.grid:
        return ()
    trials = entry.trials()
    if not all(trial.finished for trial in trials):
        return None
    found = [trial.validation for trial in trials]
    better = max if SCORES[found[0][0]].higher_is_better else min
    scores = [score for _, score in found]
    return entry.grid[scores.index(better(scores))]


def tuning_table(entries: list[Entry]) -> pd.DataFrame:
    """Every finished trial: its settings, its score on the validation rows, its cost, and whether it was chosen."""
    rows = []
    for entry in entries:
        chosen = choice(entry)
        for trial, settings in zip(entry.trials(), entry.grid, strict=True):
            if trial.finished:
                metric, score = trial.validation
                rows.append(
                    {
                        "tier": entry.tier,
                        "name": entry.name,
                        "fold": entry.fold,
                        "settings": " ".join(settings),
                        "metric": metric,
                        "validation": score,
                        "seconds": trial.seconds,
                        "chosen": settings == chosen,
                        "folder": str(trial.folder),
                    }
                )
    return pd.DataFrame(rows)
