"""Prompts are files under conf/prompts: a constant instruction, so that prefix caches serve it, then data as data."""

import re
from string import Template

from ..errors import UserError
from .compose import CONF


def prompt(name: str, **values: object) -> str:
    """The instruction conf/prompts/<name>.txt with its $fields filled in.

    Raises UserError where there is no such file, and KeyError where a field is not given.
    """
    path = CONF / "prompts" / f"{name}.txt"
    if not path.is_file():
        raise UserError(f"there is no prompt {path}")
    filled = Template(path.read_text(encoding="utf-8").strip()).substitute(values)
    return re.sub(" {2,}", " ", filled)  # a field may be empty


def instructions(name: str) -> list[str]:
    """The frozen set of instructions of conf/prompts/<name>.txt, one a line."""
    return prompt(name).splitlines()


def as_data(text: str) -> str:
    """Text between the marks that the instructions speak of; nothing in it can close them."""
    return f"<data>\n{text.replace('<', '(').replace('>', ')')}\n</data>"
