"""The transformers engine on a tiny randomly initialised model of the true class with a real tokenizer."""

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


def saved(folder, template=TEMPLATE, context=128, **generation):
    """A two-layer Llama with random weights and a word-level tokenizer, as the hub would hold them."""
    names = ["<pad>", "<eos>", "<unk>", "<system>", "<user>", "<assistant>", *WORDS]
    inner = Tokenizer(models.WordLevel({name: index for index, name in enumerate(names)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<eos>", unk_token="<unk>")
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
    return saved(tmp_path_factory.mktemp("model"))


def engine_of(folder, **values):
    return TransformersEngine(
        HFTransformersConfig(
            **{"model": "tiny", "path": folder, "dtype": "float32", "device_map": "cpu", "batch_size": 4} | values
        )
    )


def request_of(number, temperature=0.0, max_tokens=10):
    return Request(
        "summary",
        (("system", "w0"), ("user", " ".join(WORDS[number : number + number % 7 + 1]))),
        temperature,
        max_tokens,
    )


def answers(engine, requests, seed=0):
    got = dict(engine.generate(requests, [seed] * len(requests)))
    assert sorted(got) == list(range(len(requests)))
    return [got[index] for index in range(len(requests))]


def texts(engine, requests, seed=0):
    return [completion.text for completion in answers(engine, requests, seed)]


def test_a_batch_padded_on_the_left_answers_like_one_prompt_at_a_time(folder):
    requests = [request_of(number) for number in range(20)]
    together, alone = (texts(engine_of(folder, batch_size=size), requests) for size in (8, 1))
    assert together == alone and len(set(together)) > 5


def test_settings_are_kept_apart_and_every_answer_finds_its_request(folder):
    engine = engine_of(folder)
    requests = [request_of(number, max_tokens=tokens) for number in range(6) for tokens in (3, 9)]
    together = answers(engine, requests)
    assert [completion.text for completion in together] == [texts(engine, [request])[0] for request in requests]
    assert all(
        completion.completion_tokens <= request.max_tokens
        for completion, request in zip(together, requests, strict=True)
    )


def test_tokens_are_counted_without_padding_and_the_end_is_told(folder):
    long, short = answers(engine_of(folder), [request_of(6), request_of(0)])
    # <system> w0 <user> ... <assistant>
    assert (long.prompt_tokens, short.prompt_tokens) == (4 + 7, 4 + 1)
    cut = [completion for completion in answers(engine_of(folder), [request_of(n, max_tokens=1) for n in range(20)])]
    assert {(completion.finish, completion.completion_tokens) for completion in cut} <= {("length", 1), ("stop", 0)}
    assert all(completion.seconds > 0 for completion in cut)


def test_an_end_token_ends_the_text(folder, monkeypatch):
    engine = engine_of(folder)
    monkeypatch.setattr(engine, "_written", lambda *_: [[10, 11, 1, 0, 0], [12, 13, 14, 15, 16]])
    first, second = answers(engine, [request_of(0, max_tokens=5), request_of(0, max_tokens=5)])
    assert (first.text, first.finish, first.completion_tokens) == ("w4 w5", "stop", 2)
    assert (second.finish, second.completion_tokens) == ("length", 5)


def test_sampling_follows_the_seed_and_leaves_the_global_generator_alone(folder):
    engine = engine_of(folder)
    requests = [request_of(number, temperature=1.5) for number in range(4)]
    torch.manual_seed(7)
    before = torch.get_rng_state()
    one, again, other = (texts(engine, requests, seed) for seed in (1, 1, 2))
    assert one == again != other and torch.equal(before, torch.get_rng_state())


def test_the_checkpoints_own_sampling_settings_do_not_come_in(folder, tmp_path):
    odd = saved(tmp_path, repetition_penalty=5.0, no_repeat_ngram_size=1)
    requests = [request_of(number) for number in range(8)]
    assert texts(engine_of(odd), requests) == texts(engine_of(folder), requests)


class TestOutOfMemory:
    def limited(self, folder, rows, error, **values):
        """An engine whose device holds `rows` prompts."""
        engine, sizes = engine_of(folder, **values), []
        real = engine._model.generate

        def generate(**batch):
            sizes.append(len(batch["input_ids"]))
            if sizes[-1] > rows:
                raise error
            return real(**batch)

        engine._model.generate = generate
        return engine, sizes

    @pytest.mark.parametrize(
        "error", [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("MPS backend out of memory")]
    )
    def test_the_batch_is_halved_and_nothing_is_lost(self, folder, error):
        requests = [request_of(number) for number in range(10)]
        engine, sizes = self.limited(folder, 2, error, batch_size=8)
        assert texts(engine, requests) == texts(engine_of(folder), requests)
        assert sizes[:3] == [8, 4, 2] and max(sizes[3:]) == 2  # and is not tried again

    def test_half_of_what_was_tried_is_tried_next(self, folder):
        engine, sizes = self.limited(folder, 1, torch.OutOfMemoryError("CUDA out of memory."), batch_size=64)
        texts(engine, [request_of(number) for number in range(3)])
        assert sizes == [3, 1, 1, 1]

    def test_one_prompt_that_does_not_fit_is_one_line(self, folder):
        engine, _ = self.limited(folder, 0, torch.OutOfMemoryError("CUDA out of memory."))
        with pytest.raises(UserError, match="one prompt of the stage summary alone exceeds the memory"):
            texts(engine, [request_of(1)])

    def test_another_failure_is_not_hidden(self, folder):
        engine, _ = self.limited(folder, 0, RuntimeError("a bug"))
        with pytest.raises(RuntimeError, match="a bug"):
            texts(engine, [request_of(1)])


def test_a_template_without_a_system_role_gets_the_instruction_in_the_first_message(tmp_path):
    engine = engine_of(saved(tmp_path, NO_SYSTEM))
    assert engine._prompt(request_of(2)).split() == ["<user>", "w0", "w2", "w3", "w4", "<assistant>"]
    assert texts(engine, [request_of(2)])


def test_a_template_that_fails_for_another_reason_is_not_hidden(tmp_path):
    engine = engine_of(saved(tmp_path, "{{ raise_exception('never') }}"))
    with pytest.raises(TemplateError, match="never"):
        texts(engine, [request_of(2)])


def test_a_model_without_a_chat_template_is_refused(tmp_path):
    with pytest.raises(UserError, match="has no chat template"):
        engine_of(saved(tmp_path, None))


@pytest.mark.parametrize("path", ["/no/such/folder", "no-such-owner/no-such-model"])
def test_a_model_that_is_not_there_is_one_line(path):
    with pytest.raises(UserError, match="cannot be loaded: .*give a hub id") as error:
        engine_of(path)
    assert "\n" not in str(error.value)


def test_code_of_a_checkpoint_is_never_run(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "m")
    config = json.loads((tmp_path / "m/config.json").read_text())
    config |= {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil", "AutoModelForCausalLM": "evil.Evil"}}
    (tmp_path / "m/config.json").write_text(json.dumps(config))
    (tmp_path / "m/evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(UserError, match="cannot be loaded"):
        engine_of(str(tmp_path / "m"))
    assert not (tmp_path / "ran").exists()


def test_4bit_without_its_library_names_what_to_install(folder):
    if importlib.util.find_spec("bitsandbytes"):
        pytest.skip("bitsandbytes is installed")
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        engine_of(folder, quantize="4bit")


def test_a_prompt_longer_than_the_context_is_refused_before_anything_is_spent(tmp_path):
    engine = engine_of(saved(tmp_path, context=12))
    with pytest.raises(UserError, match="1 prompts do not fit .* of the stage summary: 11 tokens and 3 to write"):
        texts(engine, [request_of(0, max_tokens=3), request_of(6, max_tokens=3)])


def test_closing_early_stops_after_the_batch_at_hand(folder):
    engine, sizes = TestOutOfMemory().limited(folder, 99, None, batch_size=2)
    with closing(engine.generate([request_of(number) for number in range(10)], range(10))) as got:
        next(got)
    assert sizes == [2]


@pytest.fixture(scope="module")
def seeing(tmp_path_factory):
    """A tiny randomly initialised Qwen2.5-VL with its real processor."""
    folder = str(tmp_path_factory.mktemp("seeing"))
    torch.manual_seed(0)
    model, (processor,) = qwen()
    for name, weight in model.named_parameters():
        if weight.ndim > 1:
            torch.nn.init.normal_(weight, std=0.1 if "embed" in name else 0.4)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


class TestImages:
    def shown(self, *seeds, text="w1 w2"):
        """A request that shows so many noisy images, of two sizes."""
        images = tuple(
            np.random.default_rng(seed).integers(0, 80 + 20 * seed, (24 + seed % 2 * 16, 32, 3), np.uint8)
            for seed in seeds
        )
        messages = (("system", "w0"), ("user", "\n".join([IMAGE] * len(images) + [text])))
        return Request("multimodal", messages, 0.0, 8, images=tuple(map(str, seeds)), pixels=images)

    def test_an_answer_depends_on_the_image_and_not_on_the_batch(self, seeing):
        requests = [self.shown(seed) for seed in range(6)] + [self.shown(), self.shown(1, 2), self.shown(2, 1)]
        together = texts(engine_of(seeing, batch_size=4), requests)
        assert together == [texts(engine_of(seeing), [request])[0] for request in requests]
        assert len(set(together)) > 3

    def test_what_an_image_takes_counts_among_the_prompts_tokens(self, seeing):
        without, one, two = answers(engine_of(seeing), [self.shown(), self.shown(0), self.shown(0, 2)])
        assert without.prompt_tokens < one.prompt_tokens < two.prompt_tokens

    def test_half_precision_works_as_it_is_the_default(self, seeing):
        assert len(texts(engine_of(seeing, dtype=HFTransformersConfig().dtype), [self.shown(0), self.shown(1)])) == 2

    def test_a_model_without_eyes_says_so(self, folder):
        with pytest.raises(UserError, match="reads no images; take a vision-language model"):
            texts(engine_of(folder), [self.shown(0)])
