"""Texts become token ids of bounded length, for any order of their parts."""

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from project.config.schema import TextTransformerConfig
from project.training.encoder import load_tokenizer
from project.training.tokenization import by_length, encode, pad, share_tokens

TOKENIZER = load_tokenizer(TextTransformerConfig())
WORDS = st.lists(st.sampled_from("owl bird wise night feathers a the 12 ü 鸟".split()), max_size=40).map(" ".join)


@settings(max_examples=50)
@given(st.lists(WORDS, min_size=1, max_size=4), st.integers(8, 64))
def test_no_text_exceeds_max_tokens(pieces, max_tokens):
    encoding = encode([pieces], TOKENIZER, max_tokens)[0]
    assert len(encoding["input_ids"]) <= max_tokens


@settings(max_examples=50)
@given(st.lists(WORDS.filter(bool), min_size=2, max_size=4))
def test_truncation_does_not_depend_on_the_order(pieces):
    forward, backward = share_tokens(pieces, TOKENIZER, 24), share_tokens(pieces[::-1], TOKENIZER, 24)
    assert sorted(forward.split()) == sorted(backward.split())


def test_a_long_piece_leaves_a_short_one_its_share():
    assert share_tokens(["owl " * 100, "bird"], TOKENIZER, 22).split()[-1] == "bird"


def test_padding_is_to_the_longest_text_of_the_batch():
    encodings = encode([["owl"], ["a wise old owl at night"]], TOKENIZER, 64)
    batch = pad(encodings, TOKENIZER)
    assert batch["input_ids"].shape == (2, max(len(encoding["input_ids"]) for encoding in encodings))
    assert batch["attention_mask"].sum(1).tolist() == [len(encoding["input_ids"]) for encoding in encodings]


def test_padding_equals_the_tokenizers_own():
    encodings = encode([["owl"], [""], ["a wise old owl at night"]], TOKENIZER, 64)
    expected = TOKENIZER.pad(encodings, return_tensors="pt")
    assert all(torch.equal(values, expected[name]) for name, values in pad(encodings, TOKENIZER).items())


def test_a_batch_for_a_gpu_is_a_multiple_of_8_long(monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    batch = pad(encode([["owl"], ["a wise old owl at night"]], TOKENIZER, 64), TOKENIZER)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (2, 8)
    assert (batch["input_ids"][batch["attention_mask"] == 0] == TOKENIZER.pad_token_id).all()


@given(st.lists(st.integers(1, 100), min_size=1, max_size=200), st.integers(1, 16))
def test_batches_hold_every_row_once(lengths, size):
    batches = by_length(lengths, size, np.random.default_rng(0))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert max(map(len, batches)) <= size


def test_batches_by_length_need_less_padding_than_random_ones():
    lengths = np.random.default_rng(0).integers(5, 100, 256)
    batches = by_length(lengths.tolist(), 16, np.random.default_rng(1))
    padded = sum(len(batch) * max(lengths[batch]) for batch in batches)
    random = sum(16 * max(lengths[start : start + 16]) for start in range(0, 256, 16))
    assert padded < 0.75 * random
