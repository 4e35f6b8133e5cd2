"""Language models behind a store.

To add an engine, write a module in engines/, a registered dataclass in config/schema/llm.py and conf/llm/<name>.yaml.
"""

import importlib.util
import os
from pathlib import Path

from ..config.schema import PARTS, Config
from ..errors import UserError
from ..runtime.hub import check_hub_model
from .client import LanguageModel
from .protocol import Engine
from .store.store import Store


def open_llm(config: Config, dry: bool = False, share: tuple[int, int] = (0, 1)) -> LanguageModel:
    """Return the configured model with its store. No model is loaded before a text is missing.

    Raises UserError if store.recorded is not a folder.
    """
    recorded = (config.store.recorded,) if config.store.recorded else ()
    if recorded and not Path(*recorded).is_dir():
        raise UserError(
            f"store.recorded={config.store.recorded} does not exist in the current folder; recordings such as "
            "data/demo are part of the repository, not of the installed package. Run from a checkout, give the path "
            "of a recording, or give store.recorded=null"
        )
    store = Store(config.store.path, recorded)
    return LanguageModel(
        config.llm.model,
        store,
        lambda: _engine(config),
        allowed=config.store.engine,
        dry=dry,
        share=share,
        patience=config.store.takeover_seconds,
    )


def concurrency(config: Config) -> int:
    """Return how many requests the engine answers at once, according to the configuration."""
    key = PARTS["llm"][config.llm.kind].concurrency
    return max(1, getattr(config.llm, key)) if key else 1


def is_remote(config: Config) -> bool:
    """Return True if the engine may generate while an epoch trains."""
    return PARTS["llm"][config.llm.kind].remote


def _engine(config: Config) -> Engine:
    return PARTS["llm"][config.llm.kind].load()(config.llm)


def check_llm(config: Config) -> str | None:
    """Return a warning about the language model, or None. Raises UserError if it cannot be opened."""
    match config.llm.kind:
        case "llamacpp":
            from .engines.llamacpp import model_file

            model_file(config.llm)
            if importlib.util.find_spec("xllamacpp") is None:
                raise UserError(f"llm {config.llm.model} needs the package xllamacpp; {config.llm.install}")
        case "openai":
            from .engines.openai_server import OpenAIEngine

            OpenAIEngine(config.llm)
            if not os.environ.get(config.llm.key_env):
                return (
                    f"the environment variable {config.llm.key_env} is unset; {config.llm.base_url} will answer "
                    "only if the server needs no key"
                )
        case "transformers":
            where = f"llm.path={config.llm.path}"
            check_hub_model(config.llm.path, config.llm.revision, where)
            if config.llm.quantize == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
                raise UserError("llm.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    return None
