"""Random models of the true classes with a small tokenizer, saved to a folder, for gpu.py."""

import os
from pathlib import Path

import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

SMALL = bool(os.environ.get("GPU_BENCHMARK_SMALL"))
"""Tiny models on the processor; gpu.py --small sets it for the processes of its sections."""

DEVICE = "cpu" if SMALL else "cuda"

WORDS = "the colour of it is red blue green round a thing small large heavy price city sweet sour user".split()
MARKS = ["<pad>", "<s>", "</s>", "<unk>"]
TEMPLATE = "{% for message in messages %}{{ message.role }} {{ message.content }} {% endfor %}"
IDS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
TINY = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 300}
DEBERTA = {
    "type_vocab_size": 0,
    "relative_attention": True,
    "position_buckets": 256,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "max_relative_positions": -1,
    "position_biased_input": False,
}
QWEN3 = {
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "num_hidden_layers": 28,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "tie_word_embeddings": True,
}
BACKBONES = {
    "deberta-v3": ("DebertaV2Config", DEBERTA, {"vocab_size": 128100}, "query_proj,key_proj,value_proj,dense"),
    "modernbert": ("ModernBertConfig", {"cls_token_id": 1, "sep_token_id": 2}, {}, "Wqkv,Wi,Wo"),
    "xlm-roberta": ("XLMRobertaConfig", {"type_vocab_size": 1}, {"vocab_size": 250002}, "query,key,value,dense"),
    "bert": ("BertConfig", {}, {}, "query,key,value,dense"),
    "qwen3-0.6b": ("Qwen3Config", {"num_key_value_heads": 2, "head_dim": 8}, QWEN3, "q_proj,k_proj,v_proj,o_proj"),
}
"""Configuration class, arguments at each width, arguments at the published width alone, and layers with adapters."""


def saved_model(folder: Path, name: str, dtype: str = "float32", tiny: bool = SMALL, task: str = "AutoModel", **more):
    """Save a randomly initialised model of a backbone's class, with a tokenizer; return the folder."""
    kind, always, published, _ = BACKBONES[name]
    config = getattr(transformers, kind)(**IDS | (always | TINY if tiny else always | published) | more)
    torch.manual_seed(0)
    with torch.device(DEVICE):
        model = getattr(transformers, task).from_config(config)
    for weight in model.parameters():
        if weight.ndim > 1 and task != "AutoModel":  # so large that texts depend on the prompt
            torch.nn.init.normal_(weight, std=2 / config.hidden_size**0.5)
    model.to(getattr(torch, dtype)).save_pretrained(folder)
    save_tokenizer(folder)
    return folder


def save_tokenizer(folder: Path) -> None:
    """Save a word-level tokenizer with a chat template."""
    words = [*MARKS, *WORDS]
    words += [f"w{number}" for number in range(TINY["vocab_size"] - len(words))]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    names |= {"cls_token": "<s>", "sep_token": "</s>", "chat_template": TEMPLATE}
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)


def synchronize() -> None:
    """Wait for the GPU."""
    if not SMALL:
        torch.cuda.synchronize()
