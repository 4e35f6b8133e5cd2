"""Backbones load in float32 whatever their checkpoint's type, and decoders classify."""

import json
import math
import shutil

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from project.config.compose import load_config
from project.config.schema import Config, FusionConfig, TextTransformerConfig
from project.data.target import Target
from project.errors import UserError
from project.methods.late_fusion import TextBranch
from project.training.encoder import base_model, check_encoder, load_adapter, load_tokenizer, missing_pretrained_weights
from project.training.module import RobustModule
from project.training.tokenization import encode, pad

TARGET = Target("class", "a", ("a", "b", "c"))
WORDS = [f"w{number}" for number in range(60)]
SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "vocab_size": 64}
DECODER = {"num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 64}
DEBERTA = {
    "relative_attention": True,
    "position_buckets": 16,
    "share_att_key": True,
    "pos_att_type": ["p2c", "c2p"],
    "position_biased_input": False,
    "type_vocab_size": 0,
}
ENCODERS = {
    "deberta-v2": ("DebertaV2Config", DEBERTA, "query_proj,value_proj,dense"),
    "modernbert": ("ModernBertConfig", {"cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1}, "Wqkv,Wi,Wo"),
    "xlm-roberta": ("XLMRobertaConfig", {"type_vocab_size": 1}, "query,value,dense"),
    "bert": ("BertConfig", {}, "query,value,dense"),
}
DECODERS = {
    "llama": ("LlamaConfig", DECODER, "all-linear"),
    "qwen3": ("Qwen3Config", DECODER, "q_proj,v_proj"),
    "gemma3": ("Gemma3TextConfig", DECODER | {"layer_types": ["sliding_attention", "full_attention"]}, "all-linear"),
    "mistral": ("MistralConfig", DECODER, "all-linear"),
}
BACKBONES = ENCODERS | DECODERS


def save_tokenizer(folder, is_decoder):
    """Save a word-level tokenizer; a decoder's has neither a pad token nor special tokens around a text."""
    words = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]
    inner = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    names = {"eos_token": "</s>", "unk_token": "<unk>"}
    if not is_decoder:
        marks = [("<s>", 1), ("</s>", 2)]
        inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=marks)
        names |= {"pad_token": "<pad>", "cls_token": "<s>", "sep_token": "</s>"}
    else:
        names["padding_side"] = "left"
    transformers.PreTrainedTokenizerFast(tokenizer_object=inner, **names).save_pretrained(folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Return the folder of a tiny random model of a backbone's class, saved in a type."""
    folders = {}

    def folder(name, dtype="float32"):
        if (name, dtype) not in folders:
            place = folders[name, dtype] = tmp_path_factory.mktemp(f"{name}-{dtype}")
            kind, options, _ = BACKBONES[name]
            ids = {"pad_token_id": None if name in DECODERS else 0, "eos_token_id": 2}
            torch.manual_seed(0)
            model = transformers.AutoModel.from_config(getattr(transformers, kind)(**SIZES | ids | options))
            model.to(getattr(torch, dtype)).save_pretrained(place)
            save_tokenizer(place, name in DECODERS)
        return folders[name, dtype]

    return folder


def config_of(folder, name, *more):
    targets = BACKBONES[name][2]
    return load_config(
        [
            "method=plain",
            "model=minilm",
            f"model.encoder={folder}",
            f"model.lora.targets={targets if targets == 'all-linear' else f'[{targets}]'}",
            "perturbation.weight=0",
            "trainer.lr=0.01",
            *more,
        ]
    )


def losses_of(module, tokenizer, steps=12):
    """Return the losses of some steps on texts whose first word tells the class."""
    module.log = lambda *args, **options: None
    optimizer = module.configure_optimizers()["optimizer"]
    texts = [(f"w{label} w{index} w{index + 20}" + " w9" * (index % 3),) for index in range(6) for label in range(3)]
    batch = {"views": [pad(encode(texts, tokenizer, 16), tokenizer)], "labels": torch.arange(18) % 3}
    losses = []
    for step in range(steps):
        module.on_train_batch_start(batch, step)
        loss = module.training_step(batch, step)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def types_of(module):
    return {weight.dtype for weight in module.parameters() if weight.requires_grad}


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", list(BACKBONES))
def test_what_is_trained_is_float32_whatever_the_type_of_the_checkpoint(saved, name, dtype):
    config = config_of(saved(name, dtype), name)
    module = RobustModule(config, TARGET, total_steps=100)
    assert {weight.dtype for weight in module.parameters()} == {torch.float32}
    losses = losses_of(module, load_tokenizer(config.model))
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]


@pytest.mark.parametrize("name", list(BACKBONES))
def test_a_frozen_base_in_bfloat16_has_adapters_and_head_in_float32(saved, name, tmp_path):
    config = config_of(saved(name), name, "model.dtype=bfloat16")
    module = RobustModule(config, TARGET, total_steps=100)
    assert types_of(module) == {torch.float32}
    assert torch.bfloat16 in {weight.dtype for weight in module.parameters()}
    tokenizer = load_tokenizer(config.model)
    losses = losses_of(module, tokenizer)
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]

    module.model.save_pretrained(tmp_path)
    loaded = load_adapter(base_model(config.model, TARGET, config.seed), tmp_path)
    view = pad(encode([("w1 w2",), ("w3",)], tokenizer, 16), tokenizer)
    with torch.no_grad():
        assert torch.equal(loaded(**view).logits, module.model.eval()(**view).logits)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("frozen", ["float32", "bfloat16"])
def test_the_text_encoder_of_late_fusion_trains_in_float32(saved, dtype, frozen):
    config = FusionConfig(encoder=str(saved("bert", dtype)), dtype=frozen)
    branch = TextBranch(config, None)
    assert types_of(branch) == {torch.float32} and branch.encoder.dtype == getattr(torch, frozen)
    tokenizer = load_tokenizer(config)
    vectors = branch(pad(encode([("w1 w2",), ("w3",)], tokenizer, 16), tokenizer))
    vectors.sum().backward()
    assert vectors.dtype == torch.float32 and vectors.isfinite().all()


@pytest.mark.parametrize("name", list(DECODERS))
def test_a_decoder_reads_the_last_token_before_the_padding(saved, name):
    config = config_of(saved(name), name)
    tokenizer, model = load_tokenizer(config.model), base_model(config.model, TARGET, 0).eval()
    texts = [("w1 w2 w3 w4",), ("w5",), ("",)]
    together = model(**pad(encode(texts, tokenizer, 16), tokenizer)).logits
    for text, logits in zip(texts, together, strict=True):
        alone = model(**pad(encode([text], tokenizer, 16), tokenizer)).logits[0]
        torch.testing.assert_close(logits, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", list(BACKBONES))
def test_all_linear_adapts_every_layer_below_the_head(saved, name):
    config = config_of(saved(name), name, "model.lora.targets=all-linear")
    assert config.model.lora.targets == ["all-linear"]
    model = RobustModule(config, TARGET, total_steps=1).model
    adapted = {name.split(".lora_A")[0] for name, _ in model.named_parameters() if "lora_A" in name}
    below = model.base_model.model.base_model
    frozen = [part for part in below.modules() if isinstance(part, torch.nn.Linear) and not part.weight.requires_grad]
    assert len(adapted) == len(frozen) > 0


@pytest.mark.parametrize("model_type", ["unknown", "bert", "whisper"])
def test_code_in_an_encoders_folder_is_neither_run_nor_offered(saved, tmp_path, monkeypatch, model_type):
    """Only BERT has an own class for texts in transformers."""
    folder = tmp_path / "encoder"
    shutil.copytree(saved("bert"), folder)
    settings = json.loads((folder / "config.json").read_text())
    classes = ("AutoConfig", "AutoModel", "AutoModelForSequenceClassification")
    settings |= {"model_type": model_type, "auto_map": {name: "code.Code" for name in classes}}
    (folder / "config.json").write_text(json.dumps(settings))
    tokenizer_settings = json.loads((folder / "tokenizer_config.json").read_text())
    tokenizer_settings["auto_map"] = {"AutoTokenizer": [None, "code.Code"]}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_settings))
    (folder / "code.py").write_text(f"open({str(tmp_path / 'executed')!r}, 'w')")
    monkeypatch.setattr("builtins.input", lambda question="": pytest.fail(question))
    config = config_of(folder, "bert")
    calls = (
        lambda: check_encoder(config),
        lambda: base_model(config.model, TARGET, 0),
        lambda: missing_pretrained_weights(config.model, TARGET),
    )
    for call in calls:
        if model_type == "bert":
            call()
        else:
            with pytest.raises(UserError, match="cannot be loaded") as error:
                call()
            assert str(folder) in str(error.value) and "\n" not in str(error.value)
    if model_type == "bert":
        assert load_tokenizer(config.model).pad_token == "<pad>"
    assert not (tmp_path / "executed").exists()


def test_4_bits_without_bitsandbytes_or_a_gpu_are_one_line(saved, monkeypatch):
    config = TextTransformerConfig(encoder=str(saved("qwen3")), quantize="4bit")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="model.quantize=4bit needs the package bitsandbytes"):
        base_model(config, TARGET, 0)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UserError, match="model.quantize=4bit needs an NVIDIA GPU"):
        check_encoder(Config(model=config))


@pytest.mark.parametrize("name", list(BACKBONES))
def test_validate_finds_targets_that_fit_no_layer(saved, name):
    check_encoder(config_of(saved(name), name))
    with pytest.raises(UserError, match="fits no layer.*name layers such as .*all-linear"):
        check_encoder(config_of(saved(name), name, "model.lora.targets=[nothing]"))
