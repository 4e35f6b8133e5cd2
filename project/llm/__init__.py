"""Language models behind a store. Adding an engine: one module here, one dataclass in schema.KINDS, one case below."""

from pathlib import Path

from ..errors import UserError
from ..schema import Config
from .ask import LanguageModel
from .engine import Engine
from .store import Store

REMOTE = ("openai",)
"""Engines that do not share the processor with training, so that they may generate while it goes on."""


def open_llm(config: Config, dry: bool = False, share: tuple[int, int] = (0, 1)) -> LanguageModel:
    """The configured model in front of its store; no model file is touched before a text is missing.

    Raises UserError where store.recorded is no folder.
    """
    recorded = (config.store.recorded,) if config.store.recorded else ()
    if recorded and not Path(*recorded).is_dir():
        raise UserError(f"store.recorded={config.store.recorded}: there is no such folder; it is relative to the "
                        "current one. Give its path, or store.recorded=null")
    store = Store(config.store.path, recorded)
    return LanguageModel(config.llm.model, store, lambda: _engine(config), allowed=config.store.engine, dry=dry,
                         share=share, patience=config.store.patience)


def side_by_side(config: Config) -> int:
    """How many requests the engine answers at once, as far as the configuration tells."""
    match config.llm.kind:
        case "openai":
            return config.llm.concurrency
        case "transformers":
            return config.llm.batch_size
    return max(1, config.llm.slots)


def _engine(config: Config) -> Engine:
    match config.llm.kind:
        case "llamacpp":
            from .llamacpp import LlamaCppEngine

            return LlamaCppEngine(config.llm)
        case "openai":
            from .openai import OpenAIEngine

            return OpenAIEngine(config.llm)
        case "transformers":
            from .transformers import TransformersEngine

            return TransformersEngine(config.llm)
    raise ValueError(f"unknown engine: {config.llm.kind}")
