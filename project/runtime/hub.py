"""Check that a model of the Hugging Face hub, or of a local folder, can be loaded, without loading it."""

from pathlib import Path

from ..errors import UserError

_WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json")


def check_hub_model(source: str, revision: str | None, setting: str) -> None:
    """Check that `source`, a hub id or a folder, has a configuration and safetensors weights.

    `setting` names the configuration key in messages. Raises UserError if the folder does not exist, if the repository
    is neither cached nor reachable, or if configuration or weights are missing.
    """
    from transformers.utils.hub import has_file

    mend = "give a hub id that is cached or reachable, or a folder"
    if source.startswith((".", "/")) and not Path(source).is_dir():
        raise UserError(f"{setting}: the folder does not exist")
    try:
        has_config = has_file(source, "config.json", revision)
        has_weights = any(has_file(source, name, revision) for name in _WEIGHT_FILES)
    except (OSError, ValueError) as error:
        raise UserError(f"{setting} cannot be found: {str(error).splitlines()[0]}; {mend}") from error
    if not has_config:
        raise UserError(f"{setting} has no config.json; {mend}")
    if not has_weights:
        raise UserError(f"{setting} has no {_WEIGHT_FILES[0]}, and other formats of weights are not read; {mend}")
