"""Pieces of text -> token ids, with an equal share of the model's length for each piece."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedTokenizerBase

Encoding = dict[str, list[int]]


def share_tokens(pieces: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    """The pieces as one text, each cut to an equal share of `max_tokens` less the special tokens.

    What is cut off depends on the piece alone, never on the order of the pieces.
    """
    share = (max_tokens - tokenizer.num_special_tokens_to_add()) // len(pieces)
    cut = tokenizer(
        list(pieces), add_special_tokens=False, truncation=True, max_length=max(share, 1), return_offsets_mapping=True
    )
    ends = [offsets[-1][1] if offsets else 0 for offsets in cut["offset_mapping"]]
    return " ".join(piece[:end] for piece, end in zip(pieces, ends, strict=True))


def encode(texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Encoding]:
    """Return token ids and attention mask of each text, at most `max_tokens` long, not padded.

    An empty text is one pad token if the tokenizer adds no special tokens, as those of decoders do.
    """
    whole = [share_tokens(pieces, tokenizer, max_tokens) for pieces in texts]
    pad_id = tokenizer.pad_token_id
    encoded = tokenizer(whole, truncation=True, max_length=max_tokens)
    return [
        {"input_ids": ids, "attention_mask": mask} if ids else {"input_ids": [pad_id], "attention_mask": [1]}
        for ids, mask in zip(encoded["input_ids"], encoded["attention_mask"], strict=True)
    ]


def pad(encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """One batch, shape (texts, longest), padded to its longest text."""
    return dict(tokenizer.pad(list(encodings), return_tensors="pt"))


def by_length(lengths: Sequence[int], batch_size: int, rng) -> list[list[int]]:
    """Indices in batches of similar length, in random order.

    Texts are shuffled first and sorted only within 16 batches' worth, so that batches differ from epoch to epoch.
    """
    order = rng.permutation(len(lengths)).tolist()
    span = 16 * batch_size
    batches = []
    for start in range(0, len(order), span):
        near = sorted(order[start : start + span], key=lambda index: lengths[index])
        batches += [near[first : first + batch_size] for first in range(0, len(near), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]
