"""Parts of a text -> token ids, with an equal share of the model's length for each part."""

from collections.abc import Sequence

import numpy as np
import torch
from transformers import PreTrainedTokenizerBase

Encoding = dict[str, list[int]]


def share_tokens(pieces: Sequence[str], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> str:
    """Return the pieces as one text, each truncated to an equal share of `max_tokens` minus the special tokens.

    The truncation of a piece depends on that piece alone, never on the order of the pieces.
    """
    share = (max_tokens - tokenizer.num_special_tokens_to_add()) // len(pieces)
    truncated = tokenizer(
        list(pieces), add_special_tokens=False, truncation=True, max_length=max(share, 1), return_offsets_mapping=True
    )
    ends = [offsets[-1][1] if offsets else 0 for offsets in truncated["offset_mapping"]]
    return " ".join(piece[:end] for piece, end in zip(pieces, ends, strict=True))


def encode(texts: Sequence[Sequence[str]], tokenizer: PreTrainedTokenizerBase, max_tokens: int) -> list[Encoding]:
    """Return token ids and attention mask of each text, at most `max_tokens` long, not padded.

    An empty text is one pad token if the tokenizer adds no special tokens, as those of decoders do.
    """
    whole = [share_tokens(pieces, tokenizer, max_tokens) for pieces in texts]
    encoded = tokenizer(whole, truncation=True, max_length=max_tokens)
    rows = [ids or [tokenizer.pad_token_id] for ids in encoded["input_ids"]]
    return [{"input_ids": ids, "attention_mask": [1] * len(ids)} for ids in rows]


def pad(encodings: Sequence[Encoding], tokenizer: PreTrainedTokenizerBase) -> dict[str, torch.Tensor]:
    """Return one batch, shape (texts, longest), padded on the right to its longest text.

    With a GPU the length is a multiple of 8, for its matrix units.
    """
    lengths = np.array([len(encoding["input_ids"]) for encoding in encodings])
    longest = lengths.max()
    if torch.cuda.is_available():
        longest = -(-longest // 8) * 8
    mask = np.arange(longest) < lengths[:, None]
    ids = np.full(mask.shape, tokenizer.pad_token_id)
    ids[mask] = np.concatenate([encoding["input_ids"] for encoding in encodings])
    return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}


def by_length(lengths: Sequence[int], batch_size: int, rng) -> list[list[int]]:
    """Return batches of indices with similar lengths, in random order.

    Indices are shuffled, then sorted within windows of 16 batches only, so that batches differ between epochs.
    """
    order = rng.permutation(len(lengths)).tolist()
    window_size = 16 * batch_size
    batches = []
    for start in range(0, len(order), window_size):
        window = sorted(order[start : start + window_size], key=lambda index: lengths[index])
        batches += [window[first : first + batch_size] for first in range(0, len(window), batch_size)]
    return [batches[index] for index in rng.permutation(len(batches))]
