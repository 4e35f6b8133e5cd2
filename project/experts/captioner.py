"""Image -> caption, by an image(-text)-to-text model of the Hugging Face hub or of a folder."""

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
"""Part of the captioner's name; it changes with whatever else changes a caption."""


@dataclass
class _Captioner:
    """A loaded model, what prepares its input, and the largest batch that fits into the memory."""

    model: Any
    processor: Any
    tokenizer: Any
    fits: float = inf


def captioner_name(config: ExpertsConfig) -> str:
    """What names the captioner in the store's keys: all that changes a caption."""
    return (
        f"{config.captioner}@{config.revision or 'main'} prompt={config.prompt!r} "
        f"caption_tokens={config.caption_tokens} {config.dtype} {_VERSION}"
    )


def caption_images(images: list[np.ndarray], config: ExpertsConfig) -> list[str]:
    """One caption, on one line, for each uint8 RGB image, shape (height, width, 3), by greedy decoding.

    Raises UserError where the model cannot be loaded, takes no prompt, or one image alone exceeds the memory.
    """
    if not images:
        return []
    captioner = _captioner(config.captioner, config.revision, config.dtype, config.device_map)
    captions: list[str] = []
    while len(captions) < len(images):
        batch = images[len(captions) : len(captions) + int(min(config.batch_size, captioner.fits))]
        try:
            written = _captions(captioner, [Image.fromarray(image) for image in batch], config)
        except RuntimeError as error:  # torch.OutOfMemoryError is one
            if "out of memory" not in str(error).lower():
                raise
            written = None
        if written is None:  # only out here are the tensors free that the traceback held
            _halve(captioner, len(batch), config)
        else:
            captions += written
    return captions


def _halve(captioner: _Captioner, size: int, config: ExpertsConfig) -> None:
    """Take half of a batch of `size` from here on. Raises UserError where there is nothing left to halve."""
    if size == 1:
        raise UserError(
            f"one image alone exceeds the memory of experts.captioner={config.captioner}; give "
            "experts.dtype=bfloat16, a smaller model, or a larger device"
        )
    captioner.fits = size // 2
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@torch.inference_mode()
def _captions(captioner: _Captioner, images: list[Image.Image], config: ExpertsConfig) -> list[str]:
    model = captioner.model
    inputs = _inputs(captioner, images, config).to(model.device, model.dtype)
    # The checkpoint's penalties of repetition stay, which a caption of a small model needs; its beams and sampling go.
    out = model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=config.caption_tokens)
    # Only now: BLIP puts another first token into its prompt, in place.
    prompts = inputs["input_ids"].tolist() if "input_ids" in inputs else [[]] * len(images)
    written = [_new(tokens, prompt) for tokens, prompt in zip(out.tolist(), prompts, strict=True)]
    return [
        " ".join(_text(captioner, tokens, config.prompt, image.size).split())
        for tokens, image in zip(written, images, strict=True)
    ]


def _inputs(captioner: _Captioner, images: list[Image.Image], config: ExpertsConfig):
    """The model's input: the prompt as a chat turn where the model has a chat template, else as plain text."""
    processor = captioner.processor
    if getattr(processor, "chat_template", None):
        said = [{"type": "text", "text": config.prompt}] if config.prompt else []
        turns = [[{"role": "user", "content": [{"type": "image", "image": image}, *said]}] for image in images]
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
    if captioner.model.config.model_type == "git":  # it goes on after its prompt, not after the end of it
        return inputs | {name: inputs[name][:, :-1] for name in ("input_ids", "attention_mask")}
    return inputs


def _new(tokens: list[int], prompt: list[int]) -> list[int]:
    """The tokens after the prompt. A decoder repeats it, BLIP without its end; an encoder-decoder does not."""
    same = 0
    while same < min(len(tokens), len(prompt)) and tokens[same] == prompt[same]:
        same += 1
    return tokens[same:] if same >= len(prompt) - 1 else tokens


def _text(captioner: _Captioner, tokens: list[int], prompt: str | None, size: tuple[int, int]) -> str:
    """The words of the tokens; of a Florence-2 task that finds places in the image, what is found there."""
    tasks = getattr(captioner.processor, "tasks_answer_post_processing_type", {})
    if tasks.get(prompt, "pure_text") == "pure_text":
        return captioner.tokenizer.decode(tokens, skip_special_tokens=True)
    answer = captioner.processor.post_process_generation(
        text=captioner.tokenizer.decode(tokens), task=prompt, image_size=size
    )[prompt]
    return ", ".join(answer["labels"])


@cache
def _captioner(name: str, revision: str | None, dtype: str, device_map: str) -> _Captioner:
    """The model and its processor, loaded once. Raises UserError where they cannot be."""
    from transformers import AutoConfig, AutoImageProcessor, AutoModelForImageTextToText, AutoProcessor, AutoTokenizer

    options = {"revision": revision or "main", "trust_remote_code": False}
    try:
        AutoConfig.from_pretrained(name, **options)  # first, as without a network each file is tried for long
        processor = AutoProcessor.from_pretrained(name, **options)
        if hasattr(processor, "tokenizer"):
            tokenizer = processor.tokenizer
        else:  # two models in one, such as ViT and GPT-2, with nothing that joins their processors
            processor = AutoImageProcessor.from_pretrained(name, **options)
            tokenizer = AutoTokenizer.from_pretrained(name, **options)
        model = AutoModelForImageTextToText.from_pretrained(
            name, dtype=getattr(torch, dtype), device_map=device_map, use_safetensors=True, **options
        ).eval()
    except (OSError, ValueError, ImportError) as error:
        raise UserError(
            f"experts.captioner={name} (revision {revision or 'main'}) cannot be loaded: {_why(name, revision, error)}"
        ) from error
    if not model.config.is_encoder_decoder:
        tokenizer.padding_side = "left"
    return _Captioner(model, processor, tokenizer)


def _why(name: str, revision: str | None, error: Exception) -> str:
    """The reason in a few words, and how to mend it."""
    from huggingface_hub import is_offline_mode

    folder = Path(name).is_dir() or name.startswith((".", "/", "~"))
    if folder and not Path(name).is_dir():
        reason = "there is no such folder"
    elif not folder and is_offline_mode():
        reason = "offline (HF_HUB_OFFLINE), and the cache does not hold it with safetensors"
    elif "safetensors" in str(error):
        reason = "it has no safetensors"
    elif "not a valid model identifier" in str(error):
        reason = "the hub has no such model, or does not show it to everyone"
    else:
        reason = str(error).splitlines()[0]
    pinned = f" --revision {revision}" if revision else ""
    mend = "" if folder else f"run `hf download {name}{pinned}` once on a machine with a network, "
    return f"{reason}; {mend}give a folder with safetensors, or experts.captioner=null"


def check_experts(config: ExpertsConfig) -> None:
    """The captioner, or the packaged classifier. Raises UserError where it is not to be had."""
    if config.captioner:
        check_hub_model(config.captioner, config.revision, f"experts.captioner={config.captioner}")
        return
    if config.classifier:
        check_classifier("experts.classifier=true", "experts.classifier=false")
