"""Caption images with an image-to-text model of the Hugging Face hub or of a folder."""

from dataclasses import dataclass
from functools import cache
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from ..config.schema import ExpertsConfig
from ..errors import UserError
from ..runtime.hub import check_hub_model
from .classifier import check_classifier

_VERSION = "caption-1"
"""Part of the captioner's name. Raise it with every change of this module that changes captions."""


@dataclass
class _Captioner:
    """A loaded model, its processor and tokenizer, and the largest batch size that fits into memory."""

    model: Any
    processor: Any
    tokenizer: Any
    max_batch_size: float = inf


def captioner_name(config: ExpertsConfig) -> str:
    """Return the captioner's name in the store's keys: every setting that changes captions."""
    return (
        f"{config.captioner}@{config.revision or 'main'} prompt={config.prompt!r} "
        f"caption_tokens={config.caption_tokens} {config.dtype} {_VERSION}"
    )


def caption_images(images: list[np.ndarray], config: ExpertsConfig) -> list[str]:
    """Return one caption, on one line, for each uint8 RGB image of shape (height, width, 3), by greedy decoding.

    Raises UserError if the model cannot be loaded, if it takes no prompt, or if a single image exceeds the memory.
    """
    if not images:
        return []
    captioner = _captioner(config.captioner, config.revision, config.dtype, config.device_map)
    captions: list[str] = []
    while len(captions) < len(images):
        batch = images[len(captions) : len(captions) + int(min(config.batch_size, captioner.max_batch_size))]
        try:
            batch_captions = _captions(captioner, [Image.fromarray(image) for image in batch], config)
        except RuntimeError as error:  # the base class of torch.OutOfMemoryError
            if "out of memory" not in str(error).lower():
                raise
            batch_captions = None
        if batch_captions is None:  # outside the except block, where the traceback no longer holds the tensors
            _halve_batch_size(captioner, len(batch), config)
        else:
            captions += batch_captions
    return captions


def _halve_batch_size(captioner: _Captioner, size: int, config: ExpertsConfig) -> None:
    """Limit later batches to half of `size`. Raises UserError if `size` is 1."""
    if size == 1:
        raise UserError(
            f"one image alone exceeds the memory of experts.captioner={config.captioner}; give "
            "experts.dtype=bfloat16, a smaller model, or a larger device"
        )
    captioner.max_batch_size = size // 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.inference_mode()
def _captions(captioner: _Captioner, images: list[Image.Image], config: ExpertsConfig) -> list[str]:
    model = captioner.model
    inputs = _inputs(captioner, images, config).to(model.device, model.dtype)
    # Small models need the checkpoint's repetition penalties, so those stay; beams and sampling are switched off.
    outputs = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=config.caption_tokens)
    # Read the prompt after generation: BLIP replaces its first token in place.
    prompts = inputs["input_ids"].tolist() if "input_ids" in inputs else [[]] * len(images)
    completions = [_without_prompt(tokens, prompt) for tokens, prompt in zip(outputs.tolist(), prompts, strict=True)]
    return [
        " ".join(_decode(captioner, tokens, config.prompt, image.size).split())
        for tokens, image in zip(completions, images, strict=True)
    ]


def _inputs(captioner: _Captioner, images: list[Image.Image], config: ExpertsConfig):
    """Return the model's input: the prompt as a chat turn if the model has a chat template, else as plain text.

    Raises UserError if there is a prompt and the model takes none.
    """
    processor = captioner.processor
    if getattr(processor, "chat_template", None):
        prompt_part = [{"type": "text", "text": config.prompt}] if config.prompt else []
        turns = [[{"role": "user", "content": [{"type": "image", "image": image}, *prompt_part]}] for image in images]
        return processor.apply_chat_template(
            turns,
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
    if not config.prompt:
        return processor(images=images, return_tensors="pt")
    if not hasattr(processor, "tokenizer"):
        raise UserError(f"experts.captioner={config.captioner} takes no prompt; give experts.prompt=null")
    inputs = processor(images=images, text=[config.prompt] * len(images), padding=True, return_tensors="pt")
    if captioner.model.config.model_type == "git":  # it continues the prompt, so the end token must go
        return inputs | {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
    return inputs


def _without_prompt(tokens: list[int], prompt: list[int]) -> list[int]:
    """Return the tokens after the prompt.

    Decoders repeat the prompt, BLIP without its last token; encoder-decoders do not.
    """
    common = 0
    while common < min(len(tokens), len(prompt)) and tokens[common] == prompt[common]:
        common += 1
    return tokens[common:] if common >= len(prompt) - 1 else tokens


def _decode(captioner: _Captioner, tokens: list[int], prompt: str | None, size: tuple[int, int]) -> str:
    """Decode the tokens; for a Florence-2 task that locates objects, return their labels."""
    tasks = getattr(captioner.processor, "tasks_answer_post_processing_type", {})
    if tasks.get(prompt, "pure_text") == "pure_text":
        return captioner.tokenizer.decode(tokens, skip_special_tokens=True)
    answer = captioner.processor.post_process_generation(
        text=captioner.tokenizer.decode(tokens), task=prompt, image_size=size
    )[prompt]
    return ", ".join(answer["labels"])


@cache
def _captioner(name: str, revision: str | None, dtype: str, device_map: str) -> _Captioner:
    """Load the model and its processor once. Raises UserError if that fails."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    options = {"revision": revision or "main", "trust_remote_code": False}
    try:
        AutoConfig.from_pretrained(name, **options)  # first: without a network, each missing file waits for a timeout
        processor = AutoProcessor.from_pretrained(name, **options)
        if hasattr(processor, "tokenizer"):
            tokenizer = processor.tokenizer
        else:  # an encoder and a decoder without a joint processor, such as ViT and GPT-2
            processor = AutoImageProcessor.from_pretrained(name, **options)
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model = AutoModelForImageTextToText.from_pretrained(
            name, dtype=getattr(torch, dtype), device_map=device_map, use_safetensors=True, **options
        ).eval()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"experts.captioner={name} (revision {revision or 'main'}) cannot be loaded: "
            f"{_reason_and_remedy(name, revision, error)}"
        ) from error
    if not model.config.is_encoder_decoder:
        tokenizer.padding_side = "left"
    return _Captioner(model, processor, tokenizer)


def _reason_and_remedy(name: str, revision: str | None, error: Exception) -> str:
    """Return why the model cannot be loaded, and how to mend it."""
    from huggingface_hub import is_offline_mode

    is_folder = Path(name).is_dir() or name.startswith((".", "/", "~"))
    if is_folder and not Path(name).is_dir():
        reason = "the folder does not exist"
    elif not is_folder and is_offline_mode():
        reason = "offline mode is on (HF_HUB_OFFLINE), and the cache has no safetensors of the model"
    elif "safetensors" in str(error):
        reason = "it has no safetensors"
    elif "not a valid model identifier" in str(error):
        reason = "the hub has no such model, or the model is not public"
    else:
        reason = str(error).splitlines()[0]
    revision_option = f" --revision {revision}" if revision else ""
    download = "" if is_folder else f"run `hf download {name}{revision_option}` once on a machine with a network, "
    return f"{reason}; {download}give a folder with safetensors, or experts.captioner=null"


def check_experts(config: ExpertsConfig) -> None:
    """Check the captioner or the packaged classifier. Raises UserError if it cannot be loaded."""
    if config.captioner:
        check_hub_model(config.captioner, config.revision, f"experts.captioner={config.captioner}")
        return
    if config.classifier:
        check_classifier("experts.classifier=true", "experts.classifier=false")
