"""Captions of tiny randomly initialised models of the true classes, read from a folder with real processors."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    Blip2Config,
    Blip2ForConditionalGeneration,
    Blip2Processor,
    BlipConfig,
    BlipForConditionalGeneration,
    BlipImageProcessor,
    BlipProcessor,
    CLIPImageProcessor,
    Florence2Config,
    Florence2ForConditionalGeneration,
    Florence2Processor,
    GitConfig,
    GitForCausalLM,
    GitProcessor,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
    VisionEncoderDecoderConfig,
    VisionEncoderDecoderModel,
    ViTConfig,
    ViTImageProcessor,
)

from project.config.schema import ExpertsConfig
from project.errors import UserError
from project.experts import captioner
from project.experts.captioner import caption_images, captioner_name

PROMPT = "what is shown here"
PLACE = "<loc_1><loc_2><loc_3><loc_4>"  # one token here, as this tokenizer puts blanks between tokens
MARKS = [
    "<pad>",
    "<s>",
    "</s>",
    "<unk>",
    "<image>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|image_pad|>",
    "<|video_pad|>",
    PLACE,
]
WORDS = [
    "user",
    "assistant",
    *PROMPT.split(),
    *"Describe with a paragraph in the image .".split(),
    *(f"w{number}" for number in range(60)),
]
VOCABULARY = {name: index for index, name in enumerate([*MARKS, *WORDS])}
TEMPLATE = (
    "{% for message in messages %}<|im_start|> {{ message.role }} {% for part in message.content %}"
    "{% if part.type == 'image' %}<|vision_start|> <|image_pad|> <|vision_end|> "
    "{% else %}{{ part.text }} {% endif %}{% endfor %}<|im_end|> {% endfor %}"
    "{% if add_generation_prompt %}<|im_start|> assistant {% endif %}"
)
TEXT = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
EYES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
SIZE = {"height": 32, "width": 32}


def tokenizer_of(ends=("<s>", "</s>"), **tokens):
    """A word-level tokenizer that puts `ends` around a text."""
    inner = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    inner.post_processor = processors.TemplateProcessing(
        single=" ".join([ends[0], "$A", *ends[1:]]), special_tokens=[(name, VOCABULARY[name]) for name in ends]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        **tokens,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*MARKS[4:]]})
    return tokenizer


def blip():
    text = {**TEXT, "encoder_hidden_size": 32, "sep_token_id": 2, "bos_token_id": 5}  # not the tokenizer's first
    return (
        BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=EYES, projection_dim=32)),
        [BlipProcessor(BlipImageProcessor(size=SIZE), tokenizer_of())],
    )


def blip2():
    text = {**TEXT, "model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32}
    config = Blip2Config(
        text_config=text,
        vision_config=EYES,
        num_query_tokens=3,
        image_token_index=4,
        qformer_config={**TEXT, "encoder_hidden_size": 32},
    )
    return (
        Blip2ForConditionalGeneration(config),
        [Blip2Processor(BlipImageProcessor(size=SIZE), tokenizer_of(ends=["<s>"]), num_query_tokens=3)],
    )


def florence2():
    text = {
        **TEXT,
        "d_model": 32,
        "encoder_layers": 2,
        "decoder_layers": 2,
        "encoder_attention_heads": 4,
        "decoder_attention_heads": 4,
        "encoder_ffn_dim": 48,
        "decoder_ffn_dim": 48,
        "model_type": "bart",
        "decoder_start_token_id": 2,
        "forced_eos_token_id": 2,
        "is_encoder_decoder": True,
    }
    eyes = {
        "depths": [1, 1],
        "patch_size": [7, 3],
        "patch_stride": [4, 2],
        "patch_padding": [3, 1],
        "patch_prenorm": [False, True],
        "embed_dim": [16, 32],
        "num_heads": [2, 2],
        "num_groups": [2, 2],
        "window_size": 4,
        "projection_dim": 32,
        "drop_path_rate": 0.0,
    }
    images = CLIPImageProcessor(size=SIZE, crop_size=SIZE)
    images.image_seq_length = 17  # 4 x 4 places, and one for all of them
    return (
        Florence2ForConditionalGeneration(Florence2Config(text_config=text, vision_config=eyes, image_token_id=4)),
        [
            Florence2Processor(
                images,
                tokenizer_of(extra_special_tokens={"image_token": "<image>"}),
                post_processor_config={"description_with_bboxes": {}},
            )
        ],
    )


def git():
    config = GitConfig(**TEXT, vision_config=EYES)
    return GitForCausalLM(config), [GitProcessor(CLIPImageProcessor(size=SIZE, crop_size=SIZE), tokenizer_of())]


def qwen():
    text = {**TEXT, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    eyes = {
        "depth": 2,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_heads": 4,
        "out_hidden_size": 32,
        "patch_size": 8,
        "window_size": 16,
        "fullatt_block_indexes": [1],
    }
    config = Qwen2_5_VLConfig(
        text_config=text,
        vision_config=eyes,
        **{
            f"{name}_id": VOCABULARY[f"<|{mark}|>"]
            for name, mark in [
                ("image_token", "image_pad"),
                ("video_token", "video_pad"),
                ("vision_start_token", "vision_start"),
                ("vision_end_token", "vision_end"),
            ]
        },
    )
    images = Qwen2VLImageProcessor(patch_size=8, size={"shortest_edge": 16 * 16, "longest_edge": 64 * 64})
    return (
        Qwen2_5_VLForConditionalGeneration(config),
        [
            Qwen2_5_VLProcessor(
                images, tokenizer_of(ends=["<s>"]), Qwen2VLVideoProcessor(patch_size=8), chat_template=TEMPLATE
            )
        ],
    )


def vit_gpt2():
    text = GPT2Config(vocab_size=len(VOCABULARY), n_embd=32, n_layer=2, n_head=4, bos_token_id=1, eos_token_id=2)
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**EYES), text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return VisionEncoderDecoderModel(config), [ViTImageProcessor(size=SIZE), tokenizer_of()]


PROMPTS = {blip: PROMPT, blip2: PROMPT, florence2: "<MORE_DETAILED_CAPTION>", git: PROMPT, qwen: PROMPT, vit_gpt2: None}
every_model = pytest.mark.parametrize("build", list(PROMPTS))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Where a model of the given class lies; its weights are large enough that captions depend on the image."""
    folders = {}

    def folder(build):
        if build not in folders:
            folders[build] = str(tmp_path_factory.mktemp(build.__name__))
            torch.manual_seed(0)
            model, parts = build()
            for name, weight in model.named_parameters():
                if weight.ndim > 1:
                    torch.nn.init.normal_(weight, std=0.1 if "embed" in name or "wte" in name else 0.4)
            model.save_pretrained(folders[build])
            for part in parts:
                part.save_pretrained(folders[build])
        return folders[build]

    return folder


def experts(folder, **values):
    return ExpertsConfig(**{"captioner": folder, "dtype": "float32", "device_map": "cpu", "caption_tokens": 8} | values)


def pictures():
    """Five noisy images of four sizes."""
    draw = np.random.default_rng(0)
    return [
        draw.integers(low, high, (*size, 3), dtype=np.uint8)
        for low, high, size in [
            (0, 80, (32, 32)),
            (90, 255, (40, 28)),
            (0, 255, (20, 64)),
            (200, 255, (32, 32)),
            (0, 20, (17, 33)),
        ]
    ]


@every_model
def test_each_image_has_its_caption_whatever_the_batch(build, folder_of):
    images = pictures()
    config = experts(folder_of(build), prompt=PROMPTS[build], batch_size=2)
    together = caption_images(images, config)
    assert len(set(together)) > 1
    assert together == [caption_images([image], config)[0] for image in images]
    assert together[::-1] == caption_images(images[::-1], experts(config.captioner, prompt=config.prompt))


@every_model
def test_a_caption_is_one_line_without_special_tokens_and_within_its_budget(build, folder_of):
    for caption in caption_images(pictures(), experts(folder_of(build), prompt=PROMPTS[build])):
        assert caption == " ".join(caption.split()) and not set(caption.split()) - set(WORDS)
        assert len(caption.split()) <= 8


@pytest.mark.parametrize("build", [build for build in PROMPTS if PROMPTS[build]])
def test_the_prompt_shapes_the_caption_and_is_not_in_it(build, folder_of):
    asked = caption_images(pictures(), experts(folder_of(build), prompt=PROMPTS[build]))
    assert not any(said in caption for caption in asked for said in (PROMPT, "Describe with", "assistant"))
    assert asked != caption_images(pictures(), experts(folder_of(build), prompt="w1 w2 w3 w4 w5"))


@every_model
def test_without_a_prompt_the_image_alone_is_captioned(build, folder_of):
    captions = caption_images(pictures(), experts(folder_of(build)))
    assert len(captions) == 5 and any(captions)
    assert not any(said in caption for caption in captions for said in ("user <", "assistant"))


def test_a_model_that_takes_no_prompt_says_so(folder_of):
    with pytest.raises(UserError, match="takes no prompt; give experts.prompt=null"):
        caption_images(pictures(), experts(folder_of(vit_gpt2), prompt=PROMPT))


@every_model
def test_half_precision_works_as_it_is_the_default(build, folder_of):
    config = experts(folder_of(build), prompt=PROMPTS[build], dtype=ExpertsConfig().dtype)
    assert len(set(caption_images(pictures(), config))) > 1


def test_the_checkpoints_beams_and_sampling_are_overruled(folder_of, tmp_path):
    config = experts(folder_of(qwen), prompt=PROMPT)
    folder = shutil.copytree(config.captioner, tmp_path / "model")
    kept = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps(kept | {"do_sample": True, "temperature": 9.0, "top_k": 50, "num_beams": 4})
    )
    assert caption_images(pictures(), experts(str(folder), prompt=PROMPT)) == caption_images(pictures(), config)


def test_git_goes_on_after_its_prompt_and_not_after_an_end(folder_of, monkeypatch):
    seen, generate = [], GitForCausalLM.generate
    monkeypatch.setattr(
        GitForCausalLM,
        "generate",
        lambda self, **inputs: (seen.extend(inputs["input_ids"].tolist()), generate(self, **inputs))[1],
    )
    caption_images(pictures()[:2], experts(folder_of(git), prompt=PROMPT))
    assert seen == [[VOCABULARY[word] for word in ["<s>", *PROMPT.split()]]] * 2


def test_a_caption_that_ends_at_once_is_empty(folder_of, monkeypatch):
    config = experts(folder_of(blip2), prompt=PROMPT)
    monkeypatch.setattr(
        Blip2ForConditionalGeneration,
        "generate",
        lambda self, input_ids, **rest: torch.cat([input_ids, torch.full((len(input_ids), 1), 2)], dim=1),
    )
    assert caption_images(pictures(), config) == [""] * 5


def test_a_florence_task_that_finds_places_tells_what_is_there(folder_of, monkeypatch):
    said = torch.tensor([[VOCABULARY[word] for word in ["<s>", "w1", PLACE, "w2", "w3", PLACE, "</s>"]]])
    monkeypatch.setattr(Florence2ForConditionalGeneration, "generate", lambda self, **inputs: said)
    assert caption_images(pictures()[:1], experts(folder_of(florence2), prompt="<OD>")) == ["w1, w2 w3"]


class TestMemory:
    """A batch that does not fit is halved."""

    @pytest.fixture
    def batches(self, folder_of, monkeypatch):
        """The sizes of the batches asked for; those of more than `fits` images exceed the memory."""
        captioner._captioner.cache_clear()
        sizes, generate = [], BlipForConditionalGeneration.generate

        def watch(fits):
            def limited(self, pixel_values, **options):
                sizes.append(len(pixel_values))
                if len(pixel_values) > fits:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return generate(self, pixel_values, **options)

            monkeypatch.setattr(BlipForConditionalGeneration, "generate", limited)
            return sizes

        yield watch
        captioner._captioner.cache_clear()

    def test_the_captions_stay_the_same_and_the_smaller_batch_is_kept(self, batches, folder_of):
        config = experts(folder_of(blip))
        whole = caption_images(pictures(), config)
        sizes = batches(fits=2)
        assert caption_images(pictures(), config) == whole and sizes == [5, 2, 2, 1]
        assert caption_images(pictures()[:3], config) == whole[:3] and sizes[4:] == [2, 1]

    def test_one_image_that_does_not_fit_is_the_end(self, batches, folder_of):
        batches(fits=0)
        with pytest.raises(UserError, match="one image alone exceeds the memory"):
            caption_images(pictures(), experts(folder_of(blip)))


class TestLoading:
    """What cannot be loaded is told in one line."""

    def refused(self, name, **values):
        with pytest.raises(UserError) as caught:
            caption_images(pictures(), experts(name, **values))
        assert "\n" not in str(caught.value) and f"experts.captioner={name} " in str(caught.value)
        return str(caught.value)

    def test_the_model_is_loaded_once(self, folder_of, monkeypatch):
        config = experts(folder_of(blip))
        first = caption_images(pictures(), config)
        monkeypatch.setattr(BlipForConditionalGeneration, "from_pretrained", None)
        assert caption_images(pictures(), dataclasses.replace(config, batch_size=3)) == first

    def test_no_images_load_no_model(self):
        assert caption_images([], experts("owner/no-such-model")) == []

    def test_offline_names_the_command_that_fetches_the_model(self):
        said = self.refused("owner/no-such-model", revision="abc")
        assert "`hf download owner/no-such-model --revision abc`" in said
        assert "offline" in said and "experts.captioner=null" in said

    def test_a_folder_that_is_not_there(self, tmp_path):
        said = self.refused(str(tmp_path / "model"))
        assert "there is no such folder" in said and "hf download" not in said

    def test_an_empty_folder(self, tmp_path):
        self.refused(str(tmp_path))

    def test_weights_that_are_not_safetensors_are_refused(self, folder_of, tmp_path):
        folder = shutil.copytree(folder_of(blip), tmp_path / "model")
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert "it has no safetensors" in self.refused(str(folder))

    def test_a_text_model_is_no_captioner(self, tmp_path):
        GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=80)).save_pretrained(tmp_path)
        tokenizer_of().save_pretrained(tmp_path)
        self.refused(str(tmp_path))


@pytest.mark.parametrize(
    "other",
    [{"captioner": "owner/other"}, {"revision": "abc"}, {"prompt": "w1"}, {"caption_tokens": 9}, {"dtype": "bfloat16"}],
)
def test_the_name_tells_whatever_changes_a_caption(other):
    assert captioner_name(experts("owner/model", **other)) != captioner_name(experts("owner/model"))


@pytest.mark.parametrize("same", [{"batch_size": 1}, {"device_map": "auto"}, {"max_words": 7}])
def test_the_name_leaves_out_what_does_not(same):
    assert captioner_name(experts("owner/model", **same)) == captioner_name(experts("owner/model"))
