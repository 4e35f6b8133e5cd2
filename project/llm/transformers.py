"""Causal language models of the Hugging Face hub, or of a folder, in this process."""

import time
from collections.abc import Iterator, Sequence
from itertools import groupby

import torch
from jinja2 import TemplateError

from ..errors import UserError
from ..schema import Transformers
from .engine import Completion, Request


class TransformersEngine:
    """Batches of prompts of like length, padded on the left; a batch that does not fit in memory is halved.

    There is no structured output: an answer schema is left to the prompt and to the parser of the answer.
    """

    def __init__(self, config: Transformers):
        """Raises UserError where the model cannot be loaded, or its tokenizer has no chat template."""
        from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

        self._config, self._batch_size = config, config.batch_size
        options = {"revision": config.revision, "trust_remote_code": False}
        try:
            self._tokenizer = AutoTokenizer.from_pretrained(config.path, padding_side="left", **options)
            self._model = AutoModelForCausalLM.from_pretrained(
                config.path, dtype=getattr(torch, config.dtype), device_map=config.device_map, use_safetensors=True,
                quantization_config=_quantization(config), **options).eval()
        except (OSError, ValueError) as error:
            raise UserError(f"llm.path={config.path} (revision {config.revision or 'main'}) cannot be loaded: "
                            f"{str(error).splitlines()[0]}; give a hub id that is reachable or in the cache, or a "
                            "folder with safetensors") from error
        if not self._tokenizer.chat_template:
            raise UserError(f"llm.path={config.path} has no chat template; take an instruction-tuned model")
        if self._tokenizer.pad_token is None:
            self._tokenizer.pad_token = self._tokenizer.eos_token
        self._ends = self._end_tokens()
        # generate() fills what is unset from here: no penalty or cut-off of the checkpoint's, which no key knows of.
        self._model.generation_config = GenerationConfig(pad_token_id=self._tokenizer.pad_token_id,
                                                         eos_token_id=self._ends)

    def generate(self, requests: Sequence[Request], seeds: Sequence[int]) -> Iterator[tuple[int, Completion]]:
        """Answers batch by batch, the longest prompts of each setting first.

        Raises UserError where a prompt is longer than the model's context, or one prompt alone exceeds the memory.
        """
        prompts = [self._prompt(request) for request in requests]
        lengths = [len(ids) for ids in self._tokenizer(prompts, add_special_tokens=False)["input_ids"]]
        self._refuse_long(requests, lengths)

        def setting(index: int) -> tuple[float, int]:
            return requests[index].temperature, requests[index].max_tokens

        # The longest first: where memory is short, that shows at once.
        for (temperature, max_tokens), group in groupby(
                sorted(range(len(requests)), key=lambda index: (*setting(index), -lengths[index])), key=setting):
            pending = list(group)
            while pending:
                batch = pending[: self._batch_size]
                start = time.perf_counter()
                try:
                    written = self._written([prompts[index] for index in batch], temperature, max_tokens,
                                            seeds[batch[0]])
                except RuntimeError as error:  # torch.OutOfMemoryError is one
                    if "out of memory" not in str(error).lower():
                        raise
                    written = None
                if written is None:  # only out here are the tensors free that the traceback held
                    self._halve(len(batch), requests[batch[0]].stage)
                    continue
                pending = pending[len(batch):]
                seconds = (time.perf_counter() - start) / len(batch)
                for index, tokens in zip(batch, written, strict=True):
                    yield index, self._completion(tokens, lengths[index], max_tokens, seconds)

    @torch.inference_mode()
    def _written(self, prompts: list[str], temperature: float, max_tokens: int, seed: int) -> list[list[int]]:
        """The new tokens of each prompt, padding included."""
        batch = self._tokenizer(prompts, add_special_tokens=False, padding=True, return_tensors="pt",
                                return_token_type_ids=False).to(self._model.device)
        sampling = {"temperature": temperature, "top_p": 1.0, "top_k": 0} if temperature else {}
        # Every GPU: manual_seed below seeds them all, and the model may lie on several.
        with torch.random.fork_rng(range(torch.cuda.device_count())):
            # One seed for a batch: its rows share the generator. The store, not the seed, makes a run repeatable.
            torch.manual_seed(seed)
            out = self._model.generate(**batch, do_sample=bool(temperature), max_new_tokens=max_tokens, **sampling)
        return out[:, batch["input_ids"].shape[1]:].tolist()

    def _completion(self, tokens: list[int], prompt_tokens: int, max_tokens: int, seconds: float) -> Completion:
        end = next((place for place, token in enumerate(tokens) if token in self._ends), None)
        own = tokens[:end]
        text = self._tokenizer.decode(own, skip_special_tokens=True).strip()
        return Completion(text, "length" if end is None and len(own) >= max_tokens else "stop", prompt_tokens, len(own),
                          seconds)

    def _prompt(self, request: Request) -> str:
        messages = [{"role": role, "content": content} for role, content in request.messages]
        try:
            return self._tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        except TemplateError:
            if messages[0]["role"] != "system":
                raise
        # Some templates refuse the system role: then the instruction opens the first message.
        system, first, *rest = messages
        first = {**first, "content": f"{system['content']}\n\n{first['content']}"}
        return self._tokenizer.apply_chat_template([first, *rest], tokenize=False, add_generation_prompt=True)

    def _refuse_long(self, requests: Sequence[Request], lengths: list[int]) -> None:
        context = getattr(self._model.config, "max_position_embeddings", None) or float("inf")
        long = [index for index, request in enumerate(requests) if lengths[index] + request.max_tokens > context]
        if long:
            request = requests[long[0]]
            raise UserError(f"{len(long)} prompts do not fit llm.path={self._config.path}, the first of the stage "
                            f"{request.stage}: {lengths[long[0]]} tokens and {request.max_tokens} to write, where its "
                            f"context has {context}; lower experts.max_words or alignment.words")

    def _halve(self, size: int, stage: str) -> None:
        """Take half of a batch of `size` from here on. Raises UserError where there is nothing left to halve."""
        if size == 1:
            raise UserError(f"one prompt of the stage {stage} alone exceeds the memory; give llm.quantize=4bit, a "
                            "smaller model, or a larger device")
        self._batch_size = size // 2
        if torch.cuda.is_available():
            torch.cuda.empty_cache()

    def _end_tokens(self) -> list[int]:
        """What ends an answer: the checkpoint's tokens, which for a chat model are more than the tokenizer's one."""
        ends = self._model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else list(ends or [])
        return sorted({*ends, self._tokenizer.eos_token_id} - {None})


def _quantization(config: Transformers):
    """4-bit NormalFloat weights with the model's type for arithmetic (Dettmers et al. 2023, arXiv 2305.14314)."""
    if config.quantize == "none":
        return None
    import importlib.util

    if importlib.util.find_spec("bitsandbytes") is None:
        raise UserError("llm.quantize=4bit needs the package bitsandbytes; run: pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4",
                              bnb_4bit_compute_dtype=getattr(torch, config.dtype))
