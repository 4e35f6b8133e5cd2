"""Causal and vision-language models from the Hugging Face hub or a folder, run in this process."""

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
    """Batched generation of prompts of similar length, with left padding; halves a batch that exceeds the memory.

    It does not enforce answer schemas: the prompt asks for the format, and the parser checks it.
    """

    def __init__(self, config: HFTransformersConfig):
        """Load the model. Raises UserError if it cannot be loaded or its tokenizer has no chat template."""
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
            # A model type of both classes loads as a vision-language model, which also answers without an image.
            is_multimodal = (
                type(AutoConfig.from_pretrained(config.path, **options)) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
            )
            if is_multimodal:
                self._processor = AutoProcessor.from_pretrained(config.path, **options)
                self._tokenizer = self._processor.tokenizer
                self._tokenizer.padding_side = "left"
            else:
                self._tokenizer = AutoTokenizer.from_pretrained(config.path, padding_side="left", **options)
            self._model = (
                (AutoModelForImageTextToText if is_multimodal else AutoModelForCausalLM)
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
                f"{str(error).splitlines()[0]}; give a hub id that is reachable or in the cache, or a folder with "
                "safetensors"
            ) from error
        if not (self._processor or self._tokenizer).chat_template:
            raise UserError(f"llm.path={config.path} has no chat template; choose an instruction-tuned model")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._ends = self._end_tokens()
        # generate() reads its defaults here: without the checkpoint's penalties, which are not part of the store key.
        self._model.generation_config = GenerationConfig(
            pad_token_id=self._tokenizer.pad_token_id, eos_token_id=self._ends
        )

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Yield (index, completion) batch by batch, the longest prompts of each setting first.

        Raises UserError if a prompt exceeds the model's context, a single prompt exceeds the memory, or a request has
        images and the model reads none.
        """
        if self._processor is None and any(request.images for request in requests):
            raise UserError(f"llm.path={self._config.path} reads no images; choose a vision-language model")
        prompts = [self._prompt(request) for request in requests]
        lengths = [
            len(self._tokens([prompt], [request])["input_ids"][0])
            for prompt, request in zip(prompts, requests, strict=True)
        ]
        self._check_context(requests, lengths)

        def setting(index: int) -> tuple[float, int, int]:
            # Processors differ in how they accept prompts with unequal numbers of images.
            return requests[index].temperature, requests[index].max_tokens, len(requests[index].images)

        # Longest first, so that an out-of-memory error occurs in the first batch.
        for (temperature, max_tokens, _), group in groupby(
            sorted(range(len(requests)), key=lambda index: (*setting(index), -lengths[index])), key=setting
        ):
            pending = list(group)
            while pending:
                batch = pending[: self._batch_size]
                start = time.perf_counter()
                try:
                    inputs = self._tokens([prompts[index] for index in batch], [requests[index] for index in batch])
                    outputs = self._new_tokens(inputs, temperature, max_tokens, seeds[batch[0]])
                except RuntimeError as error:  # torch.OutOfMemoryError is one
                    if "out of memory" not in str(error).lower():
                        raise
                    inputs = outputs = None
                if outputs is None:  # outside the handler, whose traceback keeps the tensors alive
                    self._halve(len(batch), requests[batch[0]].stage)
                    continue
                pending = pending[len(batch) :]
                seconds = (time.perf_counter() - start) / len(batch)
                for index, tokens in zip(batch, outputs, strict=True):
                    yield index, self._completion(tokens, lengths[index], max_tokens, seconds)

    def _tokens(self, prompts: list[str], requests: Sequence[Request]):
        """Return the model input of prompts with equally many images each, padded on the left."""
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
    def _new_tokens(self, inputs, temperature: float, max_tokens: int, seed: int) -> list[list[int]]:
        """Return the new tokens of each prompt, padding included."""
        batch = inputs.to(self._model.device)
        if "pixel_values" in batch:
            batch["pixel_values"] = batch["pixel_values"].to(getattr(torch, self._config.dtype))
        sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        # All GPUs: manual_seed seeds every one, and device_map may spread the model over several.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            # The rows of a batch share one generator, hence one seed. The store makes a run repeatable, not the seed.
            torch.manual_seed(seed)
            out = self._model.generate(**batch, do_sample=bool(temperature), max_new_tokens=max_tokens, **sampling)
        return out[:, batch["input_ids"].shape[1] :].tolist()

    def _completion(self, tokens: list[int], prompt_tokens: int, max_tokens: int, seconds: float) -> Completion:
        end = next((position for position, token in enumerate(tokens) if token in self._ends), None)
        answer = tokens[:end]
        text = self._tokenizer.decode(answer, skip_special_tokens=True).strip()
        finish = "length" if end is None and len(answer) >= max_tokens else "stop"
        return Completion(text, finish, prompt_tokens, len(answer), seconds)

    def _prompt(self, request: Request) -> str:
        template = self._processor or self._tokenizer
        messages = [{"role": role, "content": self._content(pieces)} for role, pieces in request.pieces()]
        try:
            return template.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            if messages[0]["role"] != "system":
                raise
        # Some templates reject the system role: prepend the instruction to the first message.
        (_, system), (role, first), *_ = request.pieces()
        merged = {"role": role, "content": self._content([f"{system[0]}\n\n", *first])}
        return template.apply_chat_template([merged, *messages[2:]], tokenize=False, add_generation_prompt=True)

    def _content(self, pieces: list) -> str | list[dict]:
        """Return the content of a message for the chat template: parts for a vision-language model, else plain text."""
        if self._processor is None:
            return "".join(pieces)
        return [{"type": "text", "text": piece} if isinstance(piece, str) else {"type": "image"} for piece in pieces]

    def _check_context(self, requests: Sequence[Request], lengths: list[int]) -> None:
        context = getattr(self._model.config.get_text_config(), "max_position_embeddings", None) or float("inf")
        too_long = [index for index, request in enumerate(requests) if lengths[index] + request.max_tokens > context]
        if too_long:
            request = requests[too_long[0]]
            raise UserError(
                f"{len(too_long)} prompts exceed the context of {context} tokens of llm.path={self._config.path}; the "
                f"first, of the stage {request.stage}, has {lengths[too_long[0]]} tokens and needs "
                f"{request.max_tokens} for the answer. Lower experts.max_words or alignment.words"
            )

    def _halve(self, size: int, stage: str) -> None:
        """Halve the batch size after a batch of `size` failed. Raises UserError if `size` is 1."""
        if size == 1:
            raise UserError(
                f"a single prompt of the stage {stage} exceeds the memory; set llm.quantize=4bit, or use a smaller "
                "model or a larger device"
            )
        self._batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end_tokens(self) -> list[int]:
        """Return the end tokens of the checkpoint and the tokenizer; chat models have more than the tokenizer's one."""
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        return sorted({*ends, self._tokenizer.eos_token_id} - {None})


def _quantization(config: HFTransformersConfig):
    """Return the config of 4-bit NormalFloat weights, computed in llm.dtype (QLoRA, arXiv 2305.14314), or None."""
    if config.quantize == "none":
        return None
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("llm.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=getattr(torch, config.dtype)
    )
