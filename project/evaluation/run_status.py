"""How far the run of a configuration has come, by what its folder holds."""

from ..config.compose import run_config, to_dict
from ..config.run_identity import differences, of_test, run_folder
from ..config.schema import Config
from ..data.column_inference import inferred
from ..errors import UserError

FITTED = "run.json"
"""The last file that a training writes."""
FINISHED = "results.parquet"
"""The last file that a run writes."""


def is_begun(config: Config) -> bool:
    """Whether its folder, for which the columns are inferred first, holds a run trained as the configuration says.

    How the run was tested may differ, for that can be made anew. Raises UserError, naming what differs, where it is
    trained otherwise.
    """
    if config.data.kind == "table":
        config.data = inferred(config.data)  # the run folder names the columns, whoever chose them
    folder = run_folder(config)
    if not (folder / "config.yaml").is_file():
        return False
    changed = [f"{key}: {change}" for key, change in _changes(config).items() if not of_test(key)]
    if changed:
        raise UserError(f"{folder} holds a run of another configuration ({'; '.join(changed)}); give another name=, "
                        "or delete the folder")
    return True


def is_trained(config: Config) -> bool:
    """Whether it is trained, tested or not. Raises UserError where its folder holds a run of another configuration."""
    return is_begun(config) and (run_folder(config) / FITTED).is_file()


def is_finished(config: Config) -> bool:
    """Whether it is trained, and tested as the configuration says. Raises UserError as is_trained does."""
    return is_trained(config) and (run_folder(config) / FINISHED).is_file() and not _changes(config)


def _changes(config: Config) -> dict[str, str]:
    # A key that came after the run has, by its default, the meaning that the run had.
    return differences(to_dict(run_config(run_folder(config))), to_dict(config))
