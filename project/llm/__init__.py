"""Language models behind a store. Adding an engine: one module here, one dataclass in schema.KINDS, one case below."""

from pathlib import Path

from ..errors import UserError
from ..schema import Config
from .ask import LanguageModel
from .engine import Engine
from .store import Store


def open_llm(config: Config, dry: bool = False) -> LanguageModel:
    """The configured model in front of its store; no model file is touched before a text is missing.

    Raises UserError where store.recorded is no folder.
    """
    recorded = (config.store.recorded,) if config.store.recorded else ()
    if recorded and not Path(*recorded).is_dir():
        raise UserError(f"store.recorded={config.store.recorded}: there is no such folder; it is relative to the "
                        "current one. Give its path, or store.recorded=null")
    store = Store(config.store.path, recorded)
    return LanguageModel(config.llm.model, store, lambda: _engine(config), allowed=config.store.engine, dry=dry)


def _engine(config: Config) -> Engine:
    match config.llm.kind:
        case "llamacpp":
            from .llamacpp import LlamaCppEngine

            return LlamaCppEngine(config.llm)
    raise ValueError(f"unknown engine: {config.llm.kind}")
