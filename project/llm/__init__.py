"""Language models behind a store. Adding an engine: one module here, one dataclass in schema.KINDS, one case below."""

from ..schema import Config
from .ask import LanguageModel
from .engine import Engine
from .store import Store


def open_llm(config: Config, dry: bool = False) -> LanguageModel:
    """The configured model in front of its store; no model file is touched before a text is missing."""
    recorded = (config.store.recorded,) if config.store.recorded else ()
    store = Store(config.store.path, recorded)
    return LanguageModel(config.llm.model, store, lambda: _engine(config), allowed=config.store.engine, dry=dry)


def _engine(config: Config) -> Engine:
    match config.llm.kind:
        case "llamacpp":
            from .llamacpp import LlamaCppEngine

            return LlamaCppEngine(config.llm)
    raise ValueError(f"unknown engine: {config.llm.kind}")
