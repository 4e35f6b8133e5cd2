"""The typed configuration. The string below a field is its help text, printed by `python -m project train --help`."""

from dataclasses import dataclass, field
from typing import Any, Literal

from ..registry import PARTS, bounded
from .data import AirbnbConfig, AvitoConfig, DataConfig, EmojiConfig, PetfinderConfig, SplitConfig, TableConfig
from .llm import HFTransformersConfig, LlamaCppConfig, LLMConfig, OpenAIConfig, StoreConfig
from .model import (
    AdapterConfig,
    BoostingConfig,
    FusionConfig,
    ModelConfig,
    MultimodalLLMConfig,
    RobustnessConfig,
    TextTransformerConfig,
    TrainerConfig,
    ZeroShotConfig,
)
from .text import AlignmentConfig, ExpertsConfig, FreeLBConfig, PerturbationConfig

__all__ = [
    "PARTS",
    "AdapterConfig",
    "AirbnbConfig",
    "AlignmentConfig",
    "AvitoConfig",
    "BoostingConfig",
    "Config",
    "DataConfig",
    "EmojiConfig",
    "ExpertsConfig",
    "FreeLBConfig",
    "FusionConfig",
    "HFTransformersConfig",
    "LLMConfig",
    "LlamaCppConfig",
    "ModelConfig",
    "MultimodalLLMConfig",
    "OpenAIConfig",
    "PerturbationConfig",
    "PetfinderConfig",
    "RobustnessConfig",
    "SplitConfig",
    "StoreConfig",
    "TableConfig",
    "TextTransformerConfig",
    "TrainerConfig",
    "WandbConfig",
    "ZeroShotConfig",
]


@dataclass
class WandbConfig:
    mode: Literal["offline", "online", "disabled"] = "offline"
    """Where W&B keeps the run; disabled is the same as logger=none."""
    project: str = "text-centric-robustness"
    """Name of the W&B project."""
    entity: str | None = None
    """W&B user or team; null takes the account's default."""
    group: str | None = None
    """Group of the run in W&B; null takes the experiment."""


@dataclass
class Config:
    experiment: str = "default"
    """conf/experiment/<name>.yaml; also the folder of the outputs."""
    method: str = "ours"
    """conf/method/<name>.yaml: a complete method, an ablation or a rival."""
    name: str | None = None
    """Name of the run; null takes the method's name and a digest of the overrides."""
    seed: int = bounded(0, minimum=0)
    """Random seed of the weights, the batches and dropout."""
    output: str = "outputs"
    """Folder of all runs."""
    data: Any = None
    experts: ExpertsConfig = field(default_factory=ExpertsConfig)
    llm: Any = None
    store: StoreConfig = field(default_factory=StoreConfig)
    alignment: AlignmentConfig = field(default_factory=AlignmentConfig)
    perturbation: PerturbationConfig = field(default_factory=PerturbationConfig)
    model: Any = None
    trainer: TrainerConfig = field(default_factory=TrainerConfig)
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)
    logger: Literal["wandb", "csv", "none"] = "wandb"
    """Where training curves go: W&B (see wandb.mode), csv/version_<n>/metrics.csv of the run folder, or nowhere."""
    wandb: WandbConfig = field(default_factory=WandbConfig)
