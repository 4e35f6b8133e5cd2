"""Measure the overhead of generating through the store, compared with the engine alone.

    python benchmarks/generation.py [--check] [engines=openai,llamacpp,transformers]

Each engine answers the same prompts in three ways, alternated, three times each:

- stage: as the pipeline does, LanguageModel.ask with an empty store;
- best: the fastest loop that the engine's own interface allows, without storing anything: the limit;
- one by one: one call per sample, as in a data set that generates in __getitem__.

Prints JSON with the median seconds, and the ratios best / stage (1 is the limit) and one by one / stage. With --check
the exit code is 1 if best / stage is below 0.95. The engines are real: openai uses a server that sleeps 0.1 s, with 16
concurrent requests; llamacpp runs SmolLM2; transformers runs a small randomly initialised Qwen2.
"""

import asyncio
import json
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from sleeping_server import sleeping_server

from project.config.compose import load_config
from project.config.prompts import as_data, prompt
from project.config.schema import HFTransformersConfig, OpenAIConfig
from project.llm.client import GenerationTask, LanguageModel
from project.llm.protocol import Request
from project.llm.store.store import Store

BAR = 0.95
REPEATS = 3
LATENCY, CONCURRENCY = 0.1, 16


def requests(count: int, tokens: int) -> list[Request]:
    """Return prompts with one instruction and 20 to 60 words of data."""
    draw = random.Random(0)
    words = "small large red green old new wooden metal box bird tree house river stone light quick warm".split()
    texts = [f"{number} {' '.join(draw.choices(words, k=draw.randint(20, 60)))}" for number in range(count)]
    return [Request("perturb", (("system", prompt("perturb")), ("user", as_data(text))), 0.0, tokens) for text in texts]


def compare(engine, best: Callable[[list[Request]], None], batch: list[Request]) -> dict:
    """Return the median seconds of the three ways, alternated, and their ratios."""

    def stage():
        with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
            model = LanguageModel("measured", store, lambda: engine)
            model.watch = lambda: None
            model.ask([GenerationTask(request, lambda text, end: (), "") for request in batch], 1)

    def one_by_one():
        for request in batch:
            list(engine.generate([request], [0]))

    ways = {"stage": stage, "best": lambda: best(batch), "one_by_one": one_by_one}
    list(engine.generate(batch[:2], [0, 0]))  # triggers lazy loading
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    return {
        "requests": len(batch),
        "seconds": {name: round(value, 2) for name, value in medians.items()},
        "best/stage": round(medians["best"] / medians["stage"], 3),
        "one_by_one/stage": round(medians["one_by_one"] / medians["stage"], 2),
    }


def openai() -> dict:
    """Compare with the client library: asyncio tasks up to the concurrency limit, and nothing else."""
    import openai as library

    from project.llm.engines.openai_server import OpenAIEngine

    with sleeping_server(LATENCY) as url:
        engine = OpenAIEngine(OpenAIConfig(model="sleeping", base_url=url, concurrency=CONCURRENCY))

        async def loop(batch: list[Request]) -> None:
            async with library.AsyncOpenAI(base_url=url, api_key="none") as client:
                slots = asyncio.Semaphore(CONCURRENCY)

                async def complete(request: Request) -> None:
                    async with slots:
                        await client.chat.completions.create(
                            model="sleeping",
                            temperature=request.temperature,
                            max_tokens=request.max_tokens,
                            messages=[{"role": role, "content": content} for role, content in request.messages],
                        )

                await asyncio.gather(*map(complete, batch))

        return compare(engine, lambda batch: asyncio.run(loop(batch)), requests(240, 64))


def llamacpp() -> dict:
    """Compare with llama.cpp's chat function, called from as many threads as the engine has slots."""
    from project.llm.engines.llamacpp import LlamaCppEngine

    engine = LlamaCppEngine(load_config(["llm=smollm2"]).llm)

    def best(batch: list[Request]) -> None:
        with ThreadPoolExecutor(engine.slots) as pool:
            list(
                pool.map(
                    lambda request: engine._server.handle_chat_completions(
                        {
                            "messages": [{"role": role, "content": content} for role, content in request.messages],
                            "temperature": request.temperature,
                            "max_tokens": request.max_tokens,
                            "cache_prompt": True,
                        }
                    ),
                    batch,
                )
            )

    return compare(engine, best, requests(48, 32))


def transformers() -> dict:
    """Compare with the library's generate() on padded batches of prompts of similar length."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    from project.llm.engines.hf_transformers import TransformersEngine

    prompts = requests(96, 32)
    with tempfile.TemporaryDirectory() as folder:
        words = sorted({word for request in prompts for _, content in request.messages for word in content.split()})
        vocabulary = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *words])}
        word_level = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=word_level, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
        )
        tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            Qwen2Config(
                vocab_size=len(vocabulary),
                hidden_size=256,
                intermediate_size=512,
                num_hidden_layers=4,
                num_attention_heads=4,
                num_key_value_heads=2,
                eos_token_id=1,
                pad_token_id=0,
            )
        )
        model.save_pretrained(folder)
        engine = TransformersEngine(
            HFTransformersConfig(model="random", path=folder, dtype="float32", device_map="cpu", batch_size=16)
        )

        @torch.inference_mode()
        def best(requests: list[Request]) -> None:
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": role, "content": content} for role, content in request.messages], tokenize=False
                )
                for request in requests
            ]
            texts.sort(key=len)
            for start in range(0, len(texts), 16):
                batch = tokenizer(
                    texts[start : start + 16],
                    return_tensors="pt",
                    padding=True,
                    add_special_tokens=False,
                    return_token_type_ids=False,
                )
                tokenizer.batch_decode(model.eval().generate(**batch, max_new_tokens=32, do_sample=False))

        return compare(engine, best, prompts)


def main(arguments: list[str]) -> int:
    """Measure and print; return 1 if --check is given and a ratio is below the bar, else 0."""
    options = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    engines = {"openai": openai, "llamacpp": llamacpp, "transformers": transformers}
    report = {name: engines[name]() for name in options.get("engines", ",".join(engines)).split(",")}
    missed = [
        f"{name}: best/stage {figures['best/stage']}, bar {BAR}"
        for name, figures in report.items()
        if figures["best/stage"] < BAR
    ]
    print(json.dumps({"engines": report, "bar": BAR, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
