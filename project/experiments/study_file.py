"""A study file: tiers of methods and seeds, and the runs and trials that they define."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from ..config.compose import check_complete, check_keys, load_config, read_mapping, strict_yaml, to_dict
from ..config.run_identity import flatten_keys, format_value, is_evaluation_key, run_folder, run_name
from ..config.schema import Config
from ..errors import UserError, did_you_mean, with_context
from ..evaluation.run_info import RunInfo
from ..evaluation.run_status import is_finished, is_trained
from ..methods.base import UNTRAINED

_STUDY_KEYS = ("experiment", "hours", "folds", "overrides", "tune", "tiers")
_TIER_KEYS = ("methods", "seeds", "overrides")
_VARIANT_KEYS = ("name", "method", "overrides")
_SET_BY_STUDY = ("experiment", "method", "name", "seed")
"""Keys that only the study file may set."""
_DEFAULT_HOURS = 48.0
"""Budget of a study whose file has no `hours`."""


@dataclass(frozen=True)
class PlannedRun:
    """One call of the verb train: its label, key=value arguments and configuration.

    A trial is not evaluated on the test rows.
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
        """True if the run folder has all files, of this configuration."""
        try:
            is_complete = self._is_complete()
        except UserError:
            return False
        return is_complete and not (self.trial and self.validation is None)

    @property
    def problem(self) -> str | None:
        """Why it cannot be trained: the folder has a run of another configuration, or the trial has no score."""
        try:
            is_complete = self._is_complete()
        except UserError as error:
            return str(error)
        if is_complete and self.trial and self.validation is None:
            return (
                f"{self.folder} has no validation score to choose settings by; give {self.config.method}: {{}} "
                "under tune in the study file"
            )
        return None

    @property
    def validation(self) -> tuple[str, float] | None:
        """The metric and the best score on the validation rows; None if run.json has no score."""
        info = RunInfo.read(self.folder)
        return None if info.val is None else (info.metric, info.val.best_score)

    @property
    def seconds(self) -> float:
        """Seconds of the finished run, from run.json."""
        return float(sum(RunInfo.read(self.folder).seconds.values()))

    def _is_complete(self) -> bool:
        return (is_trained if self.trial else is_finished)(self.config)


@dataclass(frozen=True)
class Entry:
    """A method of a tier, in one fold if the study has folds: tuned once, then trained with every seed.

    `arguments` exclude name, seed and fold; `grid` has the settings of each trial, in order.
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
        """Return one run for each setting of the grid, with the first seed.

        The name depends on the training configuration, so that equal trials of two tiers share a run.
        """
        runs = []
        for settings in self.grid:
            config = _compose((*self._arguments_of_fold, f"name={self.name}", *settings))
            name = run_name(
                config.method,
                {key: value for key, value in flatten_keys(to_dict(config)).items() if not is_evaluation_key(key)},
                {},
            )
            runs.append(self._run(f"trial {' '.join(settings)}", settings, self.seeds[0], name, "tuning", trial=True))
        return runs

    def run(self, seed: int, settings: tuple[str, ...] = ()) -> PlannedRun:
        """Return the run of one seed with the tuned settings."""
        return self._run(f"seed {seed}", settings, seed, self.name, None if self.fold is None else "folds")

    def pooled_config(self, seed: int) -> Config:
        """Return the configuration without a fold: that of the run folder in which the folds are pooled."""
        return replace(_compose((*self.arguments, f"name={self.name}")), seed=seed)

    @property
    def _arguments_of_fold(self) -> tuple[str, ...]:
        if self.fold is None:
            return self.arguments
        return *self.arguments, f"data.split.test={1 / self.folds}", f"data.split.fold={self.fold}"

    def _run(
        self, label: str, settings: tuple[str, ...], seed: int, name: str, subfolder: str | None, trial: bool = False
    ) -> PlannedRun:
        """Return a run in a subfolder of the study's folder, or in the output folder of the experiment.

        Composing a configuration takes a tenth of a second, so runs that differ in seed, name and folder share one.
        """
        config = _compose((*self._arguments_of_fold, f"name={self.name}", *settings))
        output = config.output
        if subfolder:
            output = str(self.folder / subfolder / ("" if self.fold is None else f"fold-{self.fold}"))
        arguments = (*self._arguments_of_fold, *settings, f"seed={seed}", f"name={name}", f"output={output}")
        return PlannedRun(
            f"{self.label}, {label}", arguments, replace(config, seed=seed, name=name, output=output), trial
        )


@cache
def _compose(arguments: tuple[str, ...]) -> Config:
    config = load_config(list(arguments))
    check_complete(config)
    return config


@dataclass(frozen=True)
class Study:
    """A study file and the selected `tiers`. `folder` holds the study's state, trials and folds."""

    hours: float
    entries: list[Entry]
    tiers: tuple[str, ...]
    folder: Path

    def steps(self) -> Iterator[tuple[Entry, int]]:
        """Yield every entry with each seed, tier by tier and seed by seed, so that an unfinished study is balanced."""
        for tier in self.tiers:
            entries = [entry for entry in self.entries if entry.tier == tier]
            for seed in entries[0].seeds:
                yield from ((entry, seed) for entry in entries)


def read_study(path: Path, settings: list[str], tiers: list[str] | None = None) -> Study:
    """Read a study file; key=value `settings` override it, and `tiers` selects some tiers.

    Composes every configuration. Raises UserError if one is wrong, or if one name stands for two runs.
    """
    for setting in settings:
        if (key := setting.removeprefix("--").partition("=")[0]) in _SET_BY_STUDY:
            raise UserError(f"{key} cannot be given on the command line of a study; the study file sets it")
    study = check_keys(read_mapping(path, strict_yaml), _STUDY_KEYS, str(path))
    for key in ("experiment", "tiers"):
        if not study.get(key):
            raise UserError(f"{path}: {key} is not set")
    entries = [
        entry
        for name, tier in study["tiers"].items()
        for entry in _entries(path, study, str(name), tier or {}, settings)
    ]
    _check(path, entries, study.get("tune") or {})
    names = tuple(dict.fromkeys(entry.tier for entry in entries))
    for tier in tiers or ():
        if tier not in names:
            raise UserError(f"tier={tier}: {path} has {', '.join(names)}{did_you_mean(tier, names)}")
    selected = tuple(tier for tier in names if tier in (tiers or names))
    return Study(_hours(study.get("hours", _DEFAULT_HOURS), path), entries, selected, entries[0].folder)


def _hours(value: object, path: Path) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise UserError(f"{path}: hours={format_value(value)} must be a number above 0")
    return float(value)


def _arguments(overrides: dict | None) -> list[str]:
    return [f"{key}={format_value(value)}" for key, value in flatten_keys(overrides or {}).items()]


def _entries(path: Path, study: dict, tier_name: str, tier: dict, settings: list[str]) -> list[Entry]:
    """Return the entries of one tier, fold by fold."""
    where = f"{path}: tier {tier_name}"
    tier = check_keys(tier, _TIER_KEYS, where)
    seeds, folds = tier.get("seeds"), study.get("folds")
    if not isinstance(seeds, list) or not seeds or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise UserError(f"{where}: seeds must be a list of whole numbers from 0, such as [0, 1, 2, 3, 4]")
    if folds is not None and (type(folds) is not int or folds < 2):
        raise UserError(f"{path}: folds={format_value(folds)} must be a whole number from 2")
    entries = []
    for item in tier.get("methods") or []:
        variant = check_keys({"method": item} if isinstance(item, str) else item, _VARIANT_KEYS, where)
        method = variant.get("method")
        name = variant.get("name", method)
        if not name or not method:
            raise UserError(f"{where}: a method is a name of conf/method, or has the keys {', '.join(_VARIANT_KEYS)}")
        arguments = [f"experiment={study['experiment']}", f"method={method}"]
        for overrides in (study.get("overrides"), tier.get("overrides"), variant.get("overrides")):
            arguments += _arguments(overrides)
        try:
            entry = Entry(tier_name, name, (*arguments, *settings), tuple(seeds), (), Path())
            config = entry.pooled_config(seeds[0])
            grid = () if config.model.kind in UNTRAINED else _grid(study.get("tune") or {}, name, method)
            entry = replace(entry, grid=grid, folder=run_folder(config).parent.parent / "study", folds=folds)
            by_fold = [entry] if folds is None else [replace(entry, fold=fold) for fold in range(folds)]
            for entry_of_fold in by_fold:  # compose all configurations, which checks them
                entry_of_fold.trials()
                entry_of_fold.run(seeds[0])
        except UserError as error:
            raise with_context(f"{where}, {name}", error) from error
        entries += by_fold
    if not entries:
        raise UserError(f"{where}: no methods")
    return sorted(entries, key=lambda entry: entry.fold or 0)


def _grid(tune: dict, name: str, method: str) -> tuple[tuple[str, ...], ...]:
    """Return every combination of the values under the run's name, else its method, else `default`."""
    grid = flatten_keys(next((tune[key] for key in (name, method, "default") if key in tune), None) or {})
    for key, values in grid.items():
        if not isinstance(values, list) or not values:
            raise UserError(f"tune: {key} must be a list of values to try")
    settings = [[f"{key}={format_value(value)}" for value in values] for key, values in grid.items()]
    return tuple(itertools.product(*settings)) if settings else ()


def _check(path: Path, entries: list[Entry], tune: dict) -> None:
    """Raise UserError for grids of unequal size, a grid without a method, or one run folder for two configurations."""
    sizes = {entry.name: len(entry.grid) for entry in entries if entry.grid}
    if len(set(sizes.values())) > 1:
        trials = ", ".join(f"{name} {size}" for name, size in sizes.items())
        raise UserError(f"{path}: tune: all trained methods need the same number of trials, and not {trials}")
    names = {
        "default",
        *(entry.name for entry in entries),
        *(argument.removeprefix("method=") for entry in entries for argument in entry.arguments),
    }
    for key in tune:
        if key not in names:
            raise UserError(f"{path}: tune: no tier has {key}{did_you_mean(key, names)}")
    entry_by_folder: dict[Path, Entry] = {}
    for entry in entries:
        folder = entry.run(entry.seeds[0]).folder.parent
        first = entry_by_folder.setdefault(folder, entry)
        if (first.arguments, first.grid) != (entry.arguments, entry.grid):
            raise UserError(
                f"{path}: {folder} would hold two methods, {first.label} and {entry.label}; give one of "
                "them another name"
            )
