"""The state of a configuration's run, from the files of its run folder."""

from ..config.compose import run_config, to_dict
from ..config.run_identity import differences, is_evaluation_key, run_folder
from ..config.schema import Config
from ..data.column_inference import infer_columns
from ..errors import UserError
from .run_info import RUN_JSON

RESULTS_FILE = "results.parquet"
"""The last file that a run writes."""


def run_matches(config: Config) -> bool:
    """Return True if the run folder exists and was trained with this configuration.

    Keys of the evaluation may differ, since a run can be evaluated again. The columns of a table are inferred first,
    since the run folder's configuration names them. Raises UserError with the differences if the folder holds a run
    of another configuration.
    """
    if config.data.kind == "table":
        config.data = infer_columns(config.data)
    folder = run_folder(config)
    if not (folder / "config.yaml").is_file():
        return False
    changed = [f"{key}: {change}" for key, change in _changes(config).items() if not is_evaluation_key(key)]
    if changed:
        raise UserError(
            f"{folder} holds a run of another configuration ({'; '.join(changed)}); give another name=, "
            "or delete the folder"
        )
    return True


def is_trained(config: Config) -> bool:
    """Return True if training is complete. Raises UserError if the folder holds a run of another configuration."""
    return run_matches(config) and (run_folder(config) / RUN_JSON).is_file()


def is_finished(config: Config) -> bool:
    """Return True if training and this configuration's evaluation are complete. Raises UserError as is_trained does."""
    return is_trained(config) and (run_folder(config) / RESULTS_FILE).is_file() and not _changes(config)


def _changes(config: Config) -> dict[str, str]:
    # A key that is newer than the run has its default, which has the meaning that the run had.
    return differences(to_dict(run_config(run_folder(config))), to_dict(config))
