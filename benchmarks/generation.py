"""What generating through the store costs beside the engine's own time, and what it saves.

    python benchmarks/generation.py [--check] [engines=openai,llamacpp,transformers]

For each engine the same prompts are answered three ways, in turn, three times over:

- stage: the pipeline's way, LanguageModel.ask with an empty store;
- best: the engine's own best loop on these prompts, with nothing kept: the limit;
- one by one: a call for each sample, as a data set that generates in __getitem__ makes them.

Prints JSON with the medians in seconds, and the ratios best / stage (1 is the limit) and one by one / stage. With
--check it exits 1 where best / stage is under 0.95. The engines are real; openai talks to a server that sleeps 0.1 s,
16 requests side by side; llamacpp runs SmolLM2; transformers runs a small randomly initialised Qwen2.
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
    """Prompts of one instruction and 20 to 60 words of data."""
    draw = random.Random(0)
    words = "small large red green old new wooden metal box bird tree house river stone light quick warm".split()
    texts = [f"{number} {' '.join(draw.choices(words, k=draw.randint(20, 60)))}" for number in range(count)]
    return [Request("perturb", (("system", prompt("perturb")), ("user", as_data(text))), 0.0, tokens) for text in texts]


def compared(engine, best: Callable[[list[Request]], None], asked: list[Request]) -> dict:
    """Median seconds of the three ways, alternated, and their ratios."""

    def stage():
        with tempfile.TemporaryDirectory() as folder, Store(folder) as store:
            model = LanguageModel("measured", store, lambda: engine)
            model.watch = lambda: None
            model.ask([GenerationTask(request, lambda text, end: (), "") for request in asked], 1)

    def one_by_one():
        for request in asked:
            list(engine.generate([request], [0]))

    ways = {"stage": stage, "best": lambda: best(asked), "one_by_one": one_by_one}
    list(engine.generate(asked[:2], [0, 0]))  # loads what is loaded late
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(REPEATS):
        for name, way in ways.items():
            start = time.perf_counter()
            way()
            seconds[name].append(time.perf_counter() - start)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    return {
        "requests": len(asked),
        "seconds": {name: round(value, 2) for name, value in medians.items()},
        "best/stage": round(medians["best"] / medians["stage"], 3),
        "one_by_one/stage": round(medians["one_by_one"] / medians["stage"], 2),
    }


def openai() -> dict:
    """The client's own best: as many tasks as may be under way, and nothing else."""
    import openai as library

    from project.llm.engines.openai_server import OpenAIEngine

    with sleeping_server(LATENCY) as url:
        engine = OpenAIEngine(OpenAIConfig(model="sleeping", base_url=url, concurrency=CONCURRENCY))

        async def loop(asked: list[Request]) -> None:
            async with library.AsyncOpenAI(base_url=url, api_key="none") as client:
                free = asyncio.Semaphore(CONCURRENCY)

                async def one(request: Request) -> None:
                    async with free:
                        await client.chat.completions.create(
                            model="sleeping",
                            temperature=request.temperature,
                            max_tokens=request.max_tokens,
                            messages=[{"role": role, "content": content} for role, content in request.messages],
                        )

                await asyncio.gather(*map(one, asked))

        return compared(engine, lambda asked: asyncio.run(loop(asked)), requests(240, 64))


def llamacpp() -> dict:
    """llama.cpp's own best: its chat function called in a row, or from as many threads as it has slots."""
    from project.llm.engines.llamacpp import LlamaCppEngine

    engine = LlamaCppEngine(load_config(["llm=smollm2"]).llm)

    def best(asked: list[Request]) -> None:
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
                    asked,
                )
            )

    return compared(engine, best, requests(48, 32))


def transformers() -> dict:
    """The library's own best: generate() on padded batches of prompts of like length."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen2Config

    from project.llm.engines.hf_transformers import TransformersEngine

    asked = requests(96, 32)
    with tempfile.TemporaryDirectory() as folder:
        words = sorted({word for request in asked for _, content in request.messages for word in content.split()})
        table = {word: index for index, word in enumerate(["<pad>", "<eos>", "<unk>", *words])}
        inner = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>", padding_side="left"
        )
        tokenizer.chat_template = "{% for message in messages %}{{ message.content }} {% endfor %}"
        tokenizer.save_pretrained(folder)
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(
            Qwen2Config(
                vocab_size=len(table),
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
        def best(asked: list[Request]) -> None:
            texts = [
                tokenizer.apply_chat_template(
                    [{"role": role, "content": content} for role, content in request.messages], tokenize=False
                )
                for request in asked
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

        return compared(engine, best, asked)


def main(arguments: list[str]) -> int:
    """Measure the engines; 1 where --check finds a ratio under the bar."""
    given = dict(argument.split("=", 1) for argument in arguments if "=" in argument)
    known = {"openai": openai, "llamacpp": llamacpp, "transformers": transformers}
    report = {name: known[name]() for name in given.get("engines", ",".join(known)).split(",")}
    missed = [
        f"{name}: best/stage {figures['best/stage']}, bar {BAR}"
        for name, figures in report.items()
        if figures["best/stage"] < BAR
    ]
    print(json.dumps({"engines": report, "bar": BAR, "missed": missed}, indent=2))
    return int("--check" in arguments and bool(missed))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
