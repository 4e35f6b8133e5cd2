"""Captions by tiny randomly initialised models of the real classes, loaded from a folder with real processors."""

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
BOX = "<loc_1><loc_2><loc_3><loc_4>"  # a single token, because this tokenizer separates tokens by spaces
SPECIAL_TOKENS = [
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
    BOX,
]
WORDS = [
    "user",
    "assistant",
    *PROMPT.split(),
    *"Describe with a paragraph in the image .".split(),
    *(f"w{number}" for number in range(60)),
]
VOCABULARY = {name: index for index, name in enumerate([*SPECIAL_TOKENS, *WORDS])}
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
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "image_size": 32,
    "patch_size": 8,
}
SIZE = {"height": 32, "width": 32}


def tokenizer_of(ends=("<s>", "</s>"), **tokens):
    """Return a word-level tokenizer that puts `ends` around each text."""
    word_level = Tokenizer(models.WordLevel(VOCABULARY, unk_token="<unk>"))
    word_level.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    word_level.post_processor = processors.TemplateProcessing(
        single=" ".join([ends[0], "$A", *ends[1:]]), special_tokens=[(name, VOCABULARY[name]) for name in ends]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=word_level,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        cls_token="<s>",
        sep_token="</s>",
        **tokens,
    )
    tokenizer.add_special_tokens({"additional_special_tokens": [*SPECIAL_TOKENS[4:]]})
    return tokenizer


def blip():
    text = {**TEXT, "encoder_hidden_size": 32, "sep_token_id": 2, "bos_token_id": 5}  # not the tokenizer's first
    return (
        BlipForConditionalGeneration(BlipConfig(text_config=text, vision_config=VISION, projection_dim=32)),
        [BlipProcessor(BlipImageProcessor(size=SIZE), tokenizer_of())],
    )


def blip2():
    text = {**TEXT, "model_type": "opt", "ffn_dim": 48, "word_embed_proj_dim": 32}
    config = Blip2Config(
        text_config=text,
        vision_config=VISION,
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
    vision = {
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
    images.image_seq_length = 17  # 4 x 4 patches, and one token for the image
    return (
        Florence2ForConditionalGeneration(Florence2Config(text_config=text, vision_config=vision, image_token_id=4)),
        [
            Florence2Processor(
                images,
                tokenizer_of(extra_special_tokens={"image_token": "<image>"}),
                post_processor_config={"description_with_bboxes": {}},
            )
        ],
    )


def git():
    config = GitConfig(**TEXT, vision_config=VISION)
    return GitForCausalLM(config), [GitProcessor(CLIPImageProcessor(size=SIZE, crop_size=SIZE), tokenizer_of())]


def qwen():
    text = {**TEXT, "num_key_value_heads": 2, "rope_parameters": {"rope_type": "default", "mrope_section": [2, 1, 1]}}
    vision = {
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
        vision_config=vision,
        **{
            f"{name}_id": VOCABULARY[f"<|{token}|>"]
            for name, token in [
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
    config = VisionEncoderDecoderConfig.from_encoder_decoder_configs(ViTConfig(**VISION), text)
    config.decoder_start_token_id, config.pad_token_id, config.eos_token_id = 1, 0, 2
    return VisionEncoderDecoderModel(config), [ViTImageProcessor(size=SIZE), tokenizer_of()]


PROMPTS = {blip: PROMPT, blip2: PROMPT, florence2: "<MORE_DETAILED_CAPTION>", git: PROMPT, qwen: PROMPT, vit_gpt2: None}
every_model = pytest.mark.parametrize("build", list(PROMPTS))


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory):
    """Return a function that saves a model; its weights are large enough that captions depend on the image."""
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


def experts_config(folder, **values):
    return ExpertsConfig(**{"captioner": folder, "dtype": "float32", "device_map": "cpu", "caption_tokens": 8} | values)


def pictures():
    """Return five noisy images of four sizes."""
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
def test_captions_do_not_depend_on_the_batch(build, folder_of):
    images = pictures()
    config = experts_config(folder_of(build), prompt=PROMPTS[build], batch_size=2)
    captions = caption_images(images, config)
    assert len(set(captions)) > 1
    assert captions == [caption_images([image], config)[0] for image in images]
    assert captions[::-1] == caption_images(images[::-1], experts_config(config.captioner, prompt=config.prompt))


@every_model
def test_a_caption_is_one_line_without_special_tokens_and_within_its_budget(build, folder_of):
    for caption in caption_images(pictures(), experts_config(folder_of(build), prompt=PROMPTS[build])):
        assert caption == " ".join(caption.split()) and not set(caption.split()) - set(WORDS)
        assert len(caption.split()) <= 8


@pytest.mark.parametrize("build", [build for build in PROMPTS if PROMPTS[build]])
def test_the_prompt_changes_the_caption_and_is_not_part_of_it(build, folder_of):
    captions = caption_images(pictures(), experts_config(folder_of(build), prompt=PROMPTS[build]))
    assert not any(text in caption for caption in captions for text in (PROMPT, "Describe with", "assistant"))
    assert captions != caption_images(pictures(), experts_config(folder_of(build), prompt="w1 w2 w3 w4 w5"))


@every_model
def test_a_model_captions_images_without_a_prompt(build, folder_of):
    captions = caption_images(pictures(), experts_config(folder_of(build)))
    assert len(captions) == 5 and any(captions)
    assert not any(text in caption for caption in captions for text in ("user <", "assistant"))


def test_a_prompt_for_a_model_that_takes_none_is_an_error(folder_of):
    with pytest.raises(UserError, match="takes no prompt; give experts.prompt=null"):
        caption_images(pictures(), experts_config(folder_of(vit_gpt2), prompt=PROMPT))


@every_model
def test_the_default_half_precision_works(build, folder_of):
    config = experts_config(folder_of(build), prompt=PROMPTS[build], dtype=ExpertsConfig().dtype)
    assert len(set(caption_images(pictures(), config))) > 1


def test_beams_and_sampling_of_the_checkpoint_are_switched_off(folder_of, tmp_path):
    config = experts_config(folder_of(qwen), prompt=PROMPT)
    folder = shutil.copytree(config.captioner, tmp_path / "model")
    generation = json.loads((folder / "generation_config.json").read_text())
    (folder / "generation_config.json").write_text(
        json.dumps(generation | {"do_sample": True, "temperature": 9.0, "top_k": 50, "num_beams": 4})
    )
    assert caption_images(pictures(), experts_config(str(folder), prompt=PROMPT)) == caption_images(pictures(), config)


def test_git_gets_the_prompt_without_the_end_token(folder_of, monkeypatch):
    input_ids, generate = [], GitForCausalLM.generate
    monkeypatch.setattr(
        GitForCausalLM,
        "generate",
        lambda self, **inputs: (input_ids.extend(inputs["input_ids"].tolist()), generate(self, **inputs))[1],
    )
    caption_images(pictures()[:2], experts_config(folder_of(git), prompt=PROMPT))
    assert input_ids == [[VOCABULARY[word] for word in ["<s>", *PROMPT.split()]]] * 2


def test_an_immediate_end_token_gives_an_empty_caption(folder_of, monkeypatch):
    config = experts_config(folder_of(blip2), prompt=PROMPT)
    monkeypatch.setattr(
        Blip2ForConditionalGeneration,
        "generate",
        lambda self, input_ids, **rest: torch.cat([input_ids, torch.full((len(input_ids), 1), 2)], dim=1),
    )
    assert caption_images(pictures(), config) == [""] * 5


def test_a_florence_task_that_locates_objects_gives_their_labels(folder_of, monkeypatch):
    answer = torch.tensor([[VOCABULARY[word] for word in ["<s>", "w1", BOX, "w2", "w3", BOX, "</s>"]]])
    monkeypatch.setattr(Florence2ForConditionalGeneration, "generate", lambda self, **inputs: answer)
    assert caption_images(pictures()[:1], experts_config(folder_of(florence2), prompt="<OD>")) == ["w1, w2 w3"]


class TestMemory:
    """A batch that does not fit into memory is halved."""

    @pytest.fixture
    def record_batches(self, folder_of, monkeypatch):
        """Return a function that starts to record batch sizes; more than `max_size` images exceed the memory."""
        captioner._captioner.cache_clear()
        sizes, generate = [], BlipForConditionalGeneration.generate

        def record(max_size):
            def limited(self, pixel_values, **options):
                sizes.append(len(pixel_values))
                if len(pixel_values) > max_size:
                    raise torch.OutOfMemoryError("CUDA out of memory")
                return generate(self, pixel_values, **options)

            monkeypatch.setattr(BlipForConditionalGeneration, "generate", limited)
            return sizes

        yield record
        captioner._captioner.cache_clear()

    def test_smaller_batches_give_the_same_captions_and_stay_small(self, record_batches, folder_of):
        config = experts_config(folder_of(blip))
        captions = caption_images(pictures(), config)
        sizes = record_batches(max_size=2)
        assert caption_images(pictures(), config) == captions and sizes == [5, 2, 2, 1]
        assert caption_images(pictures()[:3], config) == captions[:3] and sizes[4:] == [2, 1]

    def test_a_single_image_that_does_not_fit_is_an_error(self, record_batches, folder_of):
        record_batches(max_size=0)
        with pytest.raises(UserError, match="one image alone exceeds the memory"):
            caption_images(pictures(), experts_config(folder_of(blip)))


class TestLoading:
    """A model that cannot be loaded is an error in one line."""

    def error_message(self, name, **values):
        with pytest.raises(UserError) as caught:
            caption_images(pictures(), experts_config(name, **values))
        assert "\n" not in str(caught.value) and f"experts.captioner={name} " in str(caught.value)
        return str(caught.value)

    def test_the_model_is_loaded_once(self, folder_of, monkeypatch):
        config = experts_config(folder_of(blip))
        first = caption_images(pictures(), config)
        monkeypatch.setattr(BlipForConditionalGeneration, "from_pretrained", None)
        assert caption_images(pictures(), dataclasses.replace(config, batch_size=3)) == first

    def test_without_images_no_model_is_loaded(self):
        assert caption_images([], experts_config("owner/no-such-model")) == []

    def test_the_offline_error_names_the_download_command(self):
        message = self.error_message("owner/no-such-model", revision="abc")
        assert "`hf download owner/no-such-model --revision abc`" in message
        assert "offline" in message and "experts.captioner=null" in message

    def test_a_missing_folder_is_an_error(self, tmp_path):
        message = self.error_message(str(tmp_path / "model"))
        assert "the folder does not exist" in message and "hf download" not in message

    def test_an_empty_folder_is_an_error(self, tmp_path):
        self.error_message(str(tmp_path))

    def test_weights_other_than_safetensors_are_refused(self, folder_of, tmp_path):
        folder = shutil.copytree(folder_of(blip), tmp_path / "model")
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        assert "it has no safetensors" in self.error_message(str(folder))

    def test_a_text_model_is_refused(self, tmp_path):
        GPT2LMHeadModel(GPT2Config(n_embd=8, n_layer=1, n_head=1, vocab_size=80)).save_pretrained(tmp_path)
        tokenizer_of().save_pretrained(tmp_path)
        self.error_message(str(tmp_path))


@pytest.mark.parametrize(
    "settings",
    [{"captioner": "owner/other"}, {"revision": "abc"}, {"prompt": "w1"}, {"caption_tokens": 9}, {"dtype": "bfloat16"}],
)
def test_the_name_contains_the_settings_that_change_captions(settings):
    assert captioner_name(experts_config("owner/model", **settings)) != captioner_name(experts_config("owner/model"))


@pytest.mark.parametrize("settings", [{"batch_size": 1}, {"device_map": "auto"}, {"max_words": 7}])
def test_the_name_omits_the_settings_that_change_no_caption(settings):
    assert captioner_name(experts_config("owner/model", **settings)) == captioner_name(experts_config("owner/model"))
