"""The transformers engine with a tiny randomly initialised Llama and a real tokenizer."""

import importlib.util
import json
import shutil
from contextlib import closing

import numpy as np
import pytest
import torch
from jinja2 import TemplateError
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import AutoModelForCausalLM, LlamaConfig, PreTrainedTokenizerFast

from project.config.schema import HFTransformersConfig
from project.errors import UserError
from project.llm.engines.hf_transformers import TransformersEngine
from project.llm.protocol import IMAGE, Request
from tests.experts.test_captioner import qwen

WORDS = [f"w{number}" for number in range(60)]
TEMPLATE = (
    "{% for message in messages %}<{{ message.role }}> {{ message.content }} {% endfor %}"
    "{% if add_generation_prompt %}<assistant> {% endif %}"
)
NO_SYSTEM = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}" + TEMPLATE


def save_model(folder, template=TEMPLATE, context=128, **generation):
    """Save a two-layer Llama with random weights and a word-level tokenizer; return the folder."""
    names = ["<pad>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>", *WORDS]
    words = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="<eos>", unk_token="<unk>")
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(
        LlamaConfig(
            vocab_size=len(names),
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=context,
            eos_token_id=1,
            pad_token_id=0,
            initializer_range=0.5,
        )
    )
    for name, value in generation.items():
        setattr(model.generation_config, name, value)
    model.save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("model"))


def engine_of(folder, **overrides):
    defaults = {"model": "tiny", "path": folder, "dtype": "float32", "device_map": "cpu", "batch_size": 4}
    return TransformersEngine(HFTransformersConfig(**defaults | overrides))


def request_of(number, temperature=0.0, max_tokens=10):
    return Request(
        "summary",
        (("system", "w0"), ("user", " ".join(WORDS[number : number + number % 7 + 1]))),
        temperature,
        max_tokens,
    )


def answers(engine, requests, seed=0):
    completions = dict(engine.generate(requests, [seed] * len(requests)))
    assert sorted(completions) == list(range(len(requests)))
    return [completions[index] for index in range(len(requests))]


def texts(engine, requests, seed=0):
    return [completion.text for completion in answers(engine, requests, seed)]


def test_a_left_padded_batch_gives_the_texts_of_single_prompts(folder):
    requests = [request_of(number) for number in range(20)]
    batched, single = (texts(engine_of(folder, batch_size=size), requests) for size in (8, 1))
    assert batched == single and len(set(batched)) > 5


def test_requests_with_different_settings_are_batched_separately(folder):
    engine = engine_of(folder)
    requests = [request_of(number, max_tokens=tokens) for number in range(6) for tokens in (3, 9)]
    batched = answers(engine, requests)
    assert [completion.text for completion in batched] == [texts(engine, [request])[0] for request in requests]
    assert all(
        completion.completion_tokens <= request.max_tokens
        for completion, request in zip(batched, requests, strict=True)
    )


def test_tokens_are_counted_without_padding_and_finish_is_set(folder):
    long, short = answers(engine_of(folder), [request_of(6), request_of(0)])
    # <system> w0 <user> ... <assistant>
    assert (long.prompt_tokens, short.prompt_tokens) == (4 + 7, 4 + 1)
    cut = answers(engine_of(folder), [request_of(n, max_tokens=1) for n in range(20)])
    assert {(completion.finish, completion.completion_tokens) for completion in cut} <= {("length", 1), ("stop", 0)}
    assert all(completion.seconds > 0 for completion in cut)


def test_an_end_token_ends_the_text(folder, monkeypatch):
    engine = engine_of(folder)
    monkeypatch.setattr(engine, "_new_tokens", lambda *_: [[10, 11, 1, 0, 0], [12, 13, 14, 15, 16]])
    first, second = answers(engine, [request_of(0, max_tokens=5), request_of(0, max_tokens=5)])
    assert (first.text, first.finish, first.completion_tokens) == ("w4 w5", "stop", 2)
    assert (second.finish, second.completion_tokens) == ("length", 5)


def test_sampling_depends_on_the_seed_and_keeps_the_global_generator_state(folder):
    engine = engine_of(folder)
    requests = [request_of(number, temperature=1.5) for number in range(4)]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, again, other = (texts(engine, requests, seed) for seed in (1, 1, 2))
    assert one == again != other and torch.equal(before, torch.get_rng_state())


def test_generation_settings_of_the_checkpoint_are_ignored(folder, tmp_path):
    penalized = save_model(tmp_path, repetition_penalty=5.0, no_repeat_ngram_size=1)
    requests = [request_of(number) for number in range(8)]
    assert texts(engine_of(penalized), requests) == texts(engine_of(folder), requests)


class TestOutOfMemory:
    def limited(self, folder, rows, error, **overrides):
        """Return an engine that raises `error` for more than `rows` prompts, and the list of its batch sizes."""
        engine, sizes = engine_of(folder, **overrides), []
        original = engine._model.generate

        def generate(**batch):
            sizes.append(len(batch["input_ids"]))
            if sizes[-1] > rows:
                raise error
            return original(**batch)

        engine._model.generate = generate
        return engine, sizes

    @pytest.mark.parametrize(
        "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory")]
    )
    def test_the_batch_is_halved_and_no_text_is_lost(self, folder, error):
        requests = [request_of(number) for number in range(10)]
        engine, sizes = self.limited(folder, 2, error, batch_size=8)
        assert texts(engine, requests) == texts(engine_of(folder), requests)
        assert sizes[:3] == [8, 4, 2] and max(sizes[3:]) == 2  # the larger sizes are not tried again

    def test_half_of_the_actual_batch_is_tried_next(self, folder):
        engine, sizes = self.limited(folder, 1, torch.OutOfMemoryError("CUDA out of memory."), batch_size=64)
        texts(engine, [request_of(number) for number in range(3)])
        assert sizes == [3, 1, 1, 1]

    def test_a_single_prompt_that_exceeds_the_memory_is_one_line(self, folder):
        engine, _ = self.limited(folder, 0, torch.OutOfMemoryError("CUDA out of memory."))
        with pytest.raises(UserError, match="a single prompt of the stage summary exceeds the memory"):
            texts(engine, [request_of(1)])

    def test_another_error_is_raised_unchanged(self, folder):
        engine, _ = self.limited(folder, 0, RuntimeError("a bug"))
        with pytest.raises(RuntimeError, match="a bug"):
            texts(engine, [request_of(1)])


def test_without_a_system_role_the_instruction_is_in_the_first_message(tmp_path):
    engine = engine_of(save_model(tmp_path, NO_SYSTEM))
    assert engine._prompt(request_of(2)).split() == ["<user>", "w0", "w2", "w3", "w4", "<assistant>"]
    assert texts(engine, [request_of(2)])


def test_another_template_error_is_raised_unchanged(tmp_path):
    engine = engine_of(save_model(tmp_path, "{{ raise_exception('never') }}"))
    with pytest.raises(TemplateError, match="never"):
        texts(engine, [request_of(2)])


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no chat template"):
        engine_of(save_model(tmp_path, None))


@pytest.mark.parametrize("path", ["/no/such/folder", "no-such-owner/no-such-model"])
def test_a_missing_model_is_one_line(path):
    with pytest.raises(UserError, match="cannot be loaded: .*give a hub id") as error:
        engine_of(path)
    assert "\n" not in str(error.value)


def test_code_in_a_checkpoint_is_not_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="cannot be loaded"):
        engine_of(str(tmp_path / "m"))
    assert not (tmp_path / "ran").exists()


def test_4bit_without_bitsandbytes_names_the_install_command(folder):
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        engine_of(folder, quantize="4bit")


def test_a_prompt_longer_than_the_context_is_refused_before_generation(tmp_path):
    engine = engine_of(save_model(tmp_path, context=12))
    with pytest.raises(
        UserError, match="1 prompts exceed the context of 12 tokens .* stage summary, has 11 tokens and needs 3 for"
    ):
        texts(engine, [request_of(0, max_tokens=3), request_of(6, max_tokens=3)])


def test_closing_early_stops_after_the_current_batch(folder):
    engine, sizes = TestOutOfMemory().limited(folder, 99, None, batch_size=2)
    with closing(engine.generate([request_of(number) for number in range(10)], range(10))) as completions:
        next(completions)
    assert sizes == [2]


@pytest.fixture(scope="module")
def vision_folder(tmp_path_factory):
    """The folder of a tiny randomly initialised Qwen2.5-VL with its real processor."""
    folder = str(tmp_path_factory.mktemp("vision"))
    torch.manual_seed(0)
    model, (processor,) = qwen()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1 if "embed" in name else 0.4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class TestImages:
    def request(self, *seeds, text="w1 w2"):
        """Return a request with one noisy image for each seed, in two sizes."""
        images = tuple(
            np.random.default_rng(seed).integers(0, 80 + 20 * seed, (24 + seed % 2 * 16, 32, 3), np.uint8)
            for seed in seeds
        )
        messages = (("system", "w0"), ("user", "\n".join([IMAGE] * len(images) + [text])))
        return Request("multimodal", messages, 0.0, 8, images=tuple(map(str, seeds)), pixels=images)

    def test_a_text_depends_on_the_image_and_not_on_the_batch(self, vision_folder):
        requests = [self.request(seed) for seed in range(6)]
        requests += [self.request(), self.request(1, 2), self.request(2, 1)]
        batched = texts(engine_of(vision_folder, batch_size=4), requests)
        assert batched == [texts(engine_of(vision_folder), [request])[0] for request in requests]
        assert len(set(batched)) > 3

    def test_prompt_tokens_include_image_tokens(self, vision_folder):
        requests = [self.request(), self.request(0), self.request(0, 2)]
        none, one, two = answers(engine_of(vision_folder), requests)
        assert none.prompt_tokens < one.prompt_tokens < two.prompt_tokens

    def test_the_default_precision_works(self, vision_folder):
        engine = engine_of(vision_folder, dtype=HFTransformersConfig().dtype)
        assert len(texts(engine, [self.request(0), self.request(1)])) == 2

    def test_an_image_for_a_text_model_is_refused(self, folder):
        with pytest.raises(UserError, match="reads no images; choose a vision-language model"):
            texts(engine_of(folder), [self.request(0)])
