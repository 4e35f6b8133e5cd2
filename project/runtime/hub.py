"""Check that a model of the Hugging Face hub, or a local folder, can be loaded."""

from pathlib import Path

from ..errors import UserError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def check_hub_model(place: str, revision: str | None, where: str) -> None:
    """Raises UserError where a folder, or a repository that is cached or reachable, lacks configuration or weights."""
    from transformers.utils.hub import has_file

    mend = "give a hub id that is cached or reachable, or a folder"
    if place.startswith((".", "/")) and not Path(place).is_dir():
        raise UserError(f"{where}: there is no such folder")
    try:
        configured = has_file(place, "config.json", revision)
        weighted = any(has_file(place, name, revision) for name in WEIGHTS)
    except (OSError, ValueError) as error:
        raise UserError(f"{where} cannot be found: {str(error).splitlines()[0]}; {mend}") from error
    if not configured:
        raise UserError(f"{where}: no config.json there; {mend}")
    if not weighted:
        raise UserError(f"{where}: no {WEIGHTS[0]} there, and no other form of weights is read; {mend}")
