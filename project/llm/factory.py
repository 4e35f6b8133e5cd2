"""Language models behind a store.

Adding an engine: one module here, one dataclass in schema.KINDS, one line in ENGINES, and one conf/llm/<name>.yaml.
"""

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path

from ..config.schema import Config
from ..errors import UserError
from ..runtime.hub import check_hub_model
from .client import LanguageModel
from .protocol import Engine
from .store.store import Store


@dataclass(frozen=True)
class EngineKind:
    """A kind of engine: its module and class, and the key of its configuration that tells its requests side by side.

    Without that key it answers one at a time. One that is `remote` does not share the processor with training, so that
    it may generate while that goes on.
    """

    module: str
    name: str
    side_by_side: str | None = None
    remote: bool = False


ENGINES = {
    "llamacpp": EngineKind("llamacpp", "LlamaCppEngine", "slots"),
    "openai": EngineKind("openai_server", "OpenAIEngine", "concurrency", remote=True),
    "transformers": EngineKind("hf_transformers", "TransformersEngine", "batch_size"),
}
"""The engine of each kind of language model; its class takes the configuration of llm, and is made when first asked."""


def open_llm(config: Config, dry: bool = False, share: tuple[int, int] = (0, 1)) -> LanguageModel:
    """The configured model in front of its store; no model file is touched before a text is missing.

    Raises UserError where store.recorded is no folder.
    """
    recorded = (config.store.recorded,) if config.store.recorded else ()
    if recorded and not Path(*recorded).is_dir():
        raise UserError(
            f"store.recorded={config.store.recorded}: there is no such folder; it is relative to the "
            "current one. Give its path, or store.recorded=null"
        )
    store = Store(config.store.path, recorded)
    return LanguageModel(
        config.llm.model,
        store,
        lambda: _engine(config),
        allowed=config.store.engine,
        dry=dry,
        share=share,
        patience=config.store.patience,
    )


def concurrency(config: Config) -> int:
    """How many requests the engine answers at once, as far as the configuration tells."""
    key = ENGINES[config.llm.kind].side_by_side
    return max(1, getattr(config.llm, key)) if key else 1


def _engine(config: Config) -> Engine:
    kind = ENGINES[config.llm.kind]
    return getattr(importlib.import_module(f".engines.{kind.module}", __package__), kind.name)(config.llm)


def check_llm(config: Config) -> str | None:
    """A warning about the language model, or None. Raises UserError where it could not be opened."""
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
                    f"the environment variable {config.llm.key_env} is unset; only servers that want no key will "
                    f"answer at {config.llm.base_url}"
                )
        case "transformers":
            where = f"llm.path={config.llm.path}"
            check_hub_model(config.llm.path, config.llm.revision, where)
            if config.llm.quantize == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
                raise UserError("llm.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    return None
