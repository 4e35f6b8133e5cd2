"""Prompts: files of conf/prompts. The constant instruction comes first, for prefix caches; the data follow, marked."""

import re
from string import Template

from ..errors import UserError
from .compose import CONF


def prompt(name: str, **values: object) -> str:
    """Return conf/prompts/<name>.txt with its $fields replaced by `values`.

    Raises UserError if the file does not exist, and KeyError if a field has no value.
    """
    path = CONF / "prompts" / f"{name}.txt"
    if not path.is_file():
        raise UserError(f"the prompt {path} does not exist; TCR_CONF names the folder of the configuration")
    filled = Template(path.read_text(encoding="utf-8").strip()).substitute(values)
    return re.sub(" {2,}", " ", filled)  # empty fields leave two spaces


def instructions(name: str) -> list[str]:
    """Return the instructions of conf/prompts/<name>.txt, one per line."""
    return prompt(name).splitlines()


def as_data(text: str) -> str:
    """Return `text` between the data marks that the instructions name, without characters that could close them."""
    return f"<data>\n{text.replace('<', '(').replace('>', ')')}\n</data>"
