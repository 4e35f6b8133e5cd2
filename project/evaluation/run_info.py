"""run.json: what a run was, what it cost and how it validated."""

import json
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from ..config.schema import Config
from ..errors import UserError
from ..runtime.atomic_io import write_text
from ..training.fit_info import FitInfo, Validation

RUN_JSON = "run.json"
"""The last file that a training writes."""
VERSION = 1
"""Version of the format. Files without a version are older: llm and mllm wrote `val` without best_score."""


@dataclass(frozen=True)
class RunInfo:
    """The content of run.json. Training writes the first part, evaluation the second; older files lack some fields.

    `llm_train` and `llm` are summaries of the language model's usage (see llm.client.Usage): in training, and in
    training and evaluation together. `empty_texts` and `unparsed` are shares of the test rows by condition: texts that
    are empty, and answers of a language model that could not be parsed. `extra` holds keys of a method, and keys that
    this version does not know; run.json has them next to the others.
    """

    method: str
    name: str
    data: str
    seed: int
    metric: str = "accuracy"
    perturbation: str | None = None
    seconds: dict[str, float] = field(default_factory=dict)
    val: Validation | None = None
    steps: int | None = None
    forward_samples: int | None = None
    scoring_samples: int | None = None
    epochs: int | None = None
    devices: int | None = None
    passes: int | None = None
    near_copies: int | None = None
    llm_train: dict[str, Any] = field(default_factory=dict)

    task: str | None = None
    classes: list[str] | None = None
    constant: str | float | None = None
    modalities: list[str] = field(default_factory=list)
    corruption_seed: int | None = None
    rows: dict[str, int] = field(default_factory=dict)
    llm: dict[str, Any] = field(default_factory=dict)
    empty_texts: dict[str, float] = field(default_factory=dict)
    unparsed: dict[str, float] = field(default_factory=dict)
    attack: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    git: str | None = None
    hardware: str | None = None
    wandb: str | None = None
    folds: int | None = None

    extra: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION

    @classmethod
    def of(cls, config: Config, metric: str, fit: FitInfo | None = None, **more) -> "RunInfo":
        """Return the info of a run of the configuration after `fit`; `more` sets further fields."""
        reported = {item.name: getattr(fit, item.name) for item in fields(FitInfo)} if fit else {}
        reported["perturbation"] = reported.get("perturbation") or config.perturbation.kind
        return cls(config.method, config.name, config.data.name, config.seed, metric, **reported, **more)

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> "RunInfo":
        """Return the info of a decoded run.json of any version; a null counts as absent.

        Raises KeyError, TypeError or AttributeError if it lacks method, name, data or seed, or has a wrong type.
        """
        known = {item.name for item in fields(cls)} - {"extra", "version"}
        values = {key: value for key, value in content.items() if key in known and value is not None}
        for key in ("method", "name", "data", "seed"):
            values[key]
        for item in fields(cls):
            if item.default_factory is dict and not isinstance(values.get(item.name, {}), dict):
                raise TypeError(f"{item.name} is no object")
        if "val" in values:
            values["val"] = _validation(values["val"])
        return cls(**values, extra={key: content[key] for key in content if key not in known | {"version"}})

    @classmethod
    def read(cls, folder: Path) -> "RunInfo":
        """Return the info of a run folder. Raises UserError if its run.json is missing or damaged."""
        path = folder / RUN_JSON
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise UserError(
                f"{folder} has no {RUN_JSON}; write it with python -m project evaluate run={folder}"
            ) from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UserError(
                f"{path} is damaged ({error}); delete it, then write it again with python -m project evaluate "
                f"run={folder}"
            ) from error

    def to_dict(self) -> dict[str, Any]:
        """Return the content of run.json, without the fields that are empty."""
        content = {key: value for key, value in asdict(self).items() if value is not None and value != {}}
        extra = content.pop("extra", {})
        return content | extra

    def write(self, folder: Path) -> None:
        """Write run.json into a run folder, atomically."""
        write_text(folder / RUN_JSON, json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n")


def _validation(content: dict[str, Any]) -> Validation | None:
    """Return the scores of `val`; before version 1, llm and mllm wrote the panel itself."""
    if "best_score" in content:
        return Validation(content["best_score"], content.get("last") or {})
    return Validation.of_panel(content) if "score" in content else None
