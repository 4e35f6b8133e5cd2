"""How far the run of a configuration has come, by what its folder holds."""

from ..config.compose import run_config, to_dict
from ..config.run_identity import differences, is_evaluation_key, run_folder
from ..config.schema import Config
from ..data.column_inference import infer_columns
from ..errors import UserError

RUN_JSON = "run.json"
"""The last file that a training writes."""
RESULTS_FILE = "results.parquet"
"""The last file that a run writes."""


def run_matches(config: Config) -> bool:
    """Whether its folder, for which the columns are inferred first, holds a run trained as the configuration says.

    How the run was tested may differ, for that can be made anew. Raises UserError, naming what differs, where it is
    trained otherwise.
    """
    if config.data.kind == "table":
        config.data = infer_columns(config.data)  # the run folder names the columns, whoever chose them
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
    """Whether it is trained, tested or not. Raises UserError where its folder holds a run of another configuration."""
    return run_matches(config) and (run_folder(config) / RUN_JSON).is_file()


def is_finished(config: Config) -> bool:
    """Whether it is trained, and tested as the configuration says. Raises UserError as is_trained does."""
    return is_trained(config) and (run_folder(config) / RESULTS_FILE).is_file() and not _changes(config)


def _changes(config: Config) -> dict[str, str]:
    # A key that came after the run has, by its default, the meaning that the run had.
    return differences(to_dict(run_config(run_folder(config))), to_dict(config))
