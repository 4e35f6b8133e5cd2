"""Causal and vision-language models of the Hugging Face hub, or of a folder, in this process."""

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from jinja2 import TemplateError
from PIL import Image

from ...config.schema import HFTransformersConfig
from ...errors import UserError
from ..protocol import Completion, Request


class TransformersEngine:
    """Batches of prompts of like length, padded on the left; a batch that does not fit in memory is halved.

    There is no structured output: an answer schema is left to the prompt and to the parser of the answer.
    """

    def __init__(self, config: HFTransformersConfig):
        """Raises UserError where the model cannot be loaded, or its tokenizer has no chat template."""
        from transformers import (
            AutoConfig,
            AutoModelForCausalLM,
            AutoModelForImageTextToText,
            AutoProcessor,
            AutoTokenizer,
            GenerationConfig,
        )
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING

        self._config, self._batch_size = config, config.batch_size
        self._processor = None
        options = {"revision": config.revision, "trust_remote_code": False}
        try:
            # What is made for both loads with its eyes; they answer without an image too.
            sees = type(AutoConfig.from_pretrained(config.path, **options)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            if sees:
                self._processor = AutoProcessor.from_pretrained(config.path, **options)
                self._tokenizer = self._processor.tokenizer
                self._tokenizer.padding_side = "left"
            else:
                self._tokenizer = AutoTokenizer.from_pretrained(config.path, padding_side="left", **options)
            self._model = (
                (AutoModelForImageTextToText if sees else AutoModelForCausalLM)
                .from_pretrained(
                    config.path,
                    dtype=getattr(torch, config.dtype),
                    device_map=config.device_map,
                    use_safetensors=True,
                    quantization_config=_quantization(config),
                    **options,
                )
                .eval()
            )
        except (OSError, ValueError, ImportError) as error:
            raise UserError(
                f"llm.path={config.path} (revision {config.revision or 'main'}) cannot be loaded: "
                f"{str(error).splitlines()[0]}; give a hub id that is reachable or in the cache, or a "
                "folder with safetensors"
            ) from error
        if not (self._processor or self._tokenizer).chat_template:
            raise UserError(f"llm.path={config.path} has no chat template; take an instruction-tuned model")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._ends = self._end_tokens()
        # generate() fills what is unset from here: no penalty or cut-off of the checkpoint's, which no key knows of.
        self._model.generation_config = GenerationConfig(
            pad_token_id=self._tokenizer.pad_token_id, eos_token_id=self._ends
        )

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Answers batch by batch, the longest prompts of each setting first.

        Raises UserError where a prompt is longer than the model's context, one prompt alone exceeds the memory, or a
        request shows an image to a model that reads none.
        """
        if self._processor is None and any(request.images for request in requests):
            raise UserError(f"llm.path={self._config.path} reads no images; take a vision-language model")
        prompts = [self._prompt(request) for request in requests]
        lengths = [
            len(self._tokens([prompt], [request])["input_ids"][0])
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        self._refuse_long(requests, lengths)

        def setting(index: int) -> tuple[float, int, int]:
            # Processors differ in how they take prompts with unequal numbers of images.
            return requests[index].temperature, requests[index].max_tokens, len(requests[index].images)

        # The longest first: where memory is short, that shows at once.
        for (temperature, max_tokens, _), group in groupby(
            sorted(range(len(requests)), key=lambda index: (*setting(index), -lengths[index])), key=setting
        ):
            pending = list(group)
            while pending:
                batch = pending[: self._batch_size]
                start = time.perf_counter()
                try:
                    inputs = self._tokens([prompts[index] for index in batch], [requests[index] for index in batch])
                    written = self._written(inputs, temperature, max_tokens, seeds[batch[0]])
                except RuntimeError as error:  # torch.OutOfMemoryError is one
                    if "out of memory" not in str(error).lower():
                        raise
                    inputs = written = None
                if written is None:  # only out here are the tensors free that the traceback held
                    self._halve(len(batch), requests[batch[0]].stage)
                    continue
                pending = pending[len(batch) :]
                seconds = (time.perf_counter() - start) / len(batch)
                for index, tokens in zip(batch, written, strict=True):
                    yield index, self._completion(tokens, lengths[index], max_tokens, seconds)

    def _tokens(self, prompts: list[str], requests: Sequence[Request]):
        """The model's input for prompts with equally many images each, padded on the left."""
        if self._processor is None:
            return self._tokenizer(
                prompts, add_special_tokens=False, padding=True, return_tensors="pt", return_token_type_ids=False
            )
        images = [[Image.fromarray(values) for values in request.pixels] for request in requests]
        return self._processor(
            text=prompts,
            images=images if any(images) else None,
            add_special_tokens=False,
            padding=True,
            return_tensors="pt",
        )

    @torch.inference_mode()
    def _written(self, inputs, temperature: float, max_tokens: int, seed: int) -> list[list[int]]:
        """The new tokens of each prompt, padding included."""
        batch = inputs.to(self._model.device)
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(getattr(torch, self._config.dtype))
        sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        # Every GPU: manual_seed below seeds them all, and the model may lie on several.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            # One seed for a batch: its rows share the generator. The store, not the seed, makes a run repeatable.
            torch.manual_seed(seed)
            out = self._model.generate(**batch, do_sample=bool(temperature), max_new_tokens=max_tokens, **sampling)
        return out[:, batch["input_ids"].shape[1] :].tolist()

    def _completion(self, tokens: list[int], prompt_tokens: int, max_tokens: int, seconds: float) -> Completion:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        own = tokens[:end]
        text = self._tokenizer.decode(own, skip_special_tokens=True).strip()
        return Completion(
            text, "length" if end is None and len(own) >= max_tokens else "stop", prompt_tokens, len(own), seconds
        )

    def _prompt(self, request: Request) -> str:
        template = self._processor or self._tokenizer
        messages = [{"role": role, "content": self._content(pieces)} for role, pieces in request.pieces()]
        try:
            return template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            if messages[0]["role"] != "system":
                raise
        # Some templates refuse the system role: then the instruction opens the first message.
        (_, system), (role, first), *_ = request.pieces()
        opened = {"role": role, "content": self._content([f"{system[0]}\n\n", *first])}
        return template.apply_chat_template([opened, *messages[2:]], tokenize=False, add_generation_prompt=True)

    def _content(self, pieces: list) -> str | list[dict]:
        """A message's content as the chat template takes it: parts where the model has eyes, else plain text."""
        if self._processor is None:
            return "".join(pieces)
        return [{"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image"} for piece in pieces]

    def _refuse_long(self, requests: Sequence[Request], lengths: list[int]) -> None:
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
        long = [index for index, request in enumerate(requests) if lengths[index] + request.max_tokens > context]
        if long:
            request = requests[long[0]]
            raise UserError(
                f"{len(long)} prompts do not fit llm.path={self._config.path}, the first of the stage "
                f"{request.stage}: {lengths[long[0]]} tokens and {request.max_tokens} to write, where its "
                f"context has {context}; lower experts.max_words or alignment.words"
            )

    def _halve(self, size: int, stage: str) -> None:
        """Take half of a batch of `size` from here on. Raises UserError where there is nothing left to halve."""
        if size == 1:
            raise UserError(
                f"one prompt of the stage {stage} alone exceeds the memory; give llm.quantize=4bit, a "
                "smaller model, or a larger device"
            )
        self._batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end_tokens(self) -> list[int]:
        """What ends an answer: the checkpoint's tokens, which for a chat model are more than the tokenizer's one."""
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        return sorted({*ends, self._tokenizer.eos_token_id} - {None})


def _quantization(config: HFTransformersConfig):
    """4-bit NormalFloat weights with the model's type for arithmetic (Dettmers et al. 2023, arXiv 2305.14314)."""
    if config.quantize == "none":
        return None
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("llm.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, config.dtype)
    )
