"""The shipped backbones: tiny models of their true classes train with the adapters that their conf files name."""

import io
import json
import random

import pandas as pd
import pytest
import sentencepiece
import torch
from safetensors import safe_open
from tokenizers import ByteLevelBPETokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    AutoModelForSequenceClassification,
    DebertaV2Config,
    DebertaV2Model,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedTokenizerFast,
    XLMRobertaConfig,
    XLMRobertaModel,
)

from project.cli.main import main
from project.config.compose import load_config
from project.config.schema import FreeLBConfig, TextTransformerConfig
from project.data.target import Target
from project.training import heads as head
from project.training.encoder import base_model, load_tokenizer, lora_classifier
from project.training.freelb import freelb, perturbed_embeddings
from project.training.tokenization import encode, pad, share_tokens

TEXTS = [
    "красный велосипед с корзиной и звонком, почти новый",
    "синяя лампа для чтения, работает от сети",
    "зелёное пальто из шерсти, размер средний",
    "a red bicycle with a basket and a bell, almost new",
    "a blue lamp to read by, runs on mains",
    "a green coat made of wool, of medium size",
]
KINDS = ["bicycle", "lamp", "coat"]
SMALL = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}


def pieces(**marks):
    """A sentencepiece model, trained here."""
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS * 20),
        model_writer=model,
        vocab_size=160,
        hard_vocab_limit=False,
        character_coverage=1.0,
        minloglevel=2,
        **marks,
    )
    return model.getvalue()


def byte_level():
    """Byte-level BPE, trained here."""
    marks = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(TEXTS * 5, vocab_size=400, special_tokens=marks, show_progress=False)
    return trained


def deberta_v3(folder):
    """As on the hub: a sentencepiece model beside a configuration that names no tokenizer class."""
    (folder / "spm.model").write_bytes(
        pieces(
            pad_id=0,
            bos_id=1,
            eos_id=2,
            unk_id=3,
            pad_piece="[PAD]",
            bos_piece="[CLS]",
            eos_piece="[SEP]",
            unk_piece="[UNK]",
            user_defined_symbols=["[MASK]"],
        )
    )
    (folder / "tokenizer_config.json").write_text(json.dumps({"do_lower_case": False, "vocab_type": "spm"}))
    return DebertaV2Model(
        DebertaV2Config(
            **SMALL,
            vocab_size=200,
            type_vocab_size=0,
            relative_attention=True,
            position_buckets=16,
            norm_rel_ebd="layer_norm",
            share_att_key=True,
            pos_att_type=["p2c", "c2p"],
            max_relative_positions=-1,
            position_biased_input=False,
            max_position_embeddings=64,
            pooler_hidden_size=32,
        )
    )


def modernbert(folder):
    marks = {"cls_token": "<s>", "sep_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    trained = byte_level()
    trained._tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, **marks).save_pretrained(folder)
    return ModernBertModel(
        ModernBertConfig(
            **SMALL,
            vocab_size=400,
            max_position_embeddings=80,
            pad_token_id=1,
            cls_token_id=0,
            sep_token_id=2,
            bos_token_id=0,
            eos_token_id=2,
            local_attention=8,
        )
    )


def xlm_roberta(folder):
    (folder / "sentencepiece.bpe.model").write_bytes(pieces())
    return XLMRobertaModel(XLMRobertaConfig(**SMALL, vocab_size=200, max_position_embeddings=80, type_vocab_size=1))


BUILDS = {"deberta-v3": deberta_v3, "modernbert": modernbert, "xlm-roberta": xlm_roberta}
every_backbone = pytest.mark.parametrize("name", list(BUILDS))


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny models wait for each other's threads longer than they compute."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def encoder_of(tmp_path_factory):
    """The folder of a tiny backbone, named as its conf file."""
    folders = {}

    def encoder(name):
        if name not in folders:
            folders[name] = tmp_path_factory.mktemp(name)
            torch.manual_seed(0)
            BUILDS[name](folders[name]).save_pretrained(folders[name])
        return folders[name]

    return encoder


@pytest.fixture
def args_of(encoder_of, tmp_path):
    """A whole run on 48 rows of Cyrillic and Latin text, with the shipped conf file but for the encoder's place."""
    draw = random.Random(0)
    rows = [
        {"title": draw.choice([TEXTS[kind], TEXTS[kind + 3]]), "price": draw.randint(1, 9), "kind": KINDS[kind]}
        for kind in (index % 3 for index in range(48))
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "rows.csv", index=False)

    def args(name, *more):
        return [
            "data=table",
            f"data.path={tmp_path / 'rows.csv'}",
            "data.text=[title]",
            "data.table=[price]",
            "data.target=kind",
            "method=rules",
            f"model={name}",
            f"model.encoder={encoder_of(name)}",
            "model.max_tokens=48",
            "trainer=cpu",
            "trainer.epochs=1",
            "trainer.batch_size=8",
            f"output={tmp_path / 'outputs'}",
            f"store.path={tmp_path / 'store'}",
            "wandb.mode=disabled",
            "name=run",
            "robustness.levels=[0.5]",
            "robustness.missing=single",
            "robustness.orders=1",
            "robustness.resamples=20",
            *more,
        ]

    return args


@every_backbone
def test_a_backbone_trains_from_raw_rows_to_results_and_evaluates_alike_again(name, args_of, tmp_path):
    args = args_of(name)
    assert main(["train", *args]) == 0
    folder = tmp_path / "outputs/default/run/seed-0"
    results = pd.read_parquet(folder / "results.parquet")
    assert set(results["condition"]) >= {"clean", "noisy", "missing"}
    with safe_open(folder / "adapter/adapter_model.safetensors", "pt") as weights:
        adapted = {key.split(".lora_A")[0] for key in weights.keys() if ".lora_A" in key}
    layers = {
        target: sum(module.endswith(f".{target}") for module in adapted)
        for target in load_config(args).model.lora.targets
    }
    assert min(layers.values()) >= 2, layers
    before = pd.read_parquet(folder / "predictions.parquet")
    assert main(["evaluate", *args]) == 0
    pd.testing.assert_frame_equal(before, pd.read_parquet(folder / "predictions.parquet"))
    assert main(["export", f"run={folder}", f"output={tmp_path / 'out'}"]) == 0  # which compares the logits
    loaded = AutoModelForSequenceClassification.from_pretrained(tmp_path / "out")
    assert loaded.config.id2label == dict(enumerate(sorted(KINDS)))


@every_backbone
def test_freelb_moves_the_embeddings_of_every_backbone(name, encoder_of):
    """Also where texts are padded."""
    config = load_config([f"model={name}", f"model.encoder={encoder_of(name)}"]).model
    target = Target("class", KINDS[0], tuple(KINDS))
    model, tokenizer = lora_classifier(base_model(config, target, seed=0), config), load_tokenizer(config)
    view = pad(encode([(TEXTS[0], TEXTS[4]), (TEXTS[2][:9],)], tokenizer, 48), tokenizer)
    embedding, mask = model.get_input_embeddings(), view["attention_mask"]
    delta = torch.randn(*mask.shape, embedding.embedding_dim)
    with torch.no_grad():
        clean = model(**view).logits
        for where, moves in ((mask, True), (1 - mask, False)):
            with perturbed_embeddings(embedding, delta * where.unsqueeze(-1)):
                moved = model(**view).logits
            assert torch.allclose(moved, clean, atol=1e-5) != moves
    labels = torch.tensor([0, 1])
    freelb(model.train(), view, lambda logits: head.loss(logits, labels, target, "class"), FreeLBConfig()).backward()
    assert all(weight.grad is not None for weight in model.parameters() if weight.requires_grad)


@every_backbone
def test_pieces_are_cut_at_the_same_place_whatever_the_script(name, encoder_of):
    tokenizer = load_tokenizer(TextTransformerConfig(encoder=str(encoder_of(name))))
    text = share_tokens((TEXTS[0], TEXTS[4]), tokenizer, 24)
    first, second = (
        next(size for size in range(len(whole), 0, -1) if whole[:size] in text) for whole in (TEXTS[0], TEXTS[4])
    )
    assert text == f"{TEXTS[0][:first].rstrip()} {TEXTS[4][:second]}" and 0 < first < len(TEXTS[0])
    batch = pad(encode([(TEXTS[0], TEXTS[4]), (TEXTS[2],)], tokenizer, 24), tokenizer)
    assert batch["input_ids"].shape[1] <= 24 and batch["attention_mask"].sum(1).min() > 2
