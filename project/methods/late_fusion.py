"""Late fusion of the raw modalities, without a text in between: a branch each, and one head on all of their vectors.

What is noisy, missing or dropped in training is set in the configuration: late fusion as it is, "traditional robust
training" by noise on the inputs and dropout, or modality dropout (Neverova et al. 2015, "ModDrop", arXiv 1501.00102).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from peft import TaskType
from safetensors.torch import load_file, save_file
from torch import nn
from transformers.modeling_outputs import SequenceClassifierOutput

from ..config.schema import Config, FusionConfig
from ..corruption.conditions import Condition
from ..data.record import Record, seeded
from ..data.rows import Rows
from ..errors import UserError
from ..pipeline.corrupt import corrupt
from ..pipeline.pipeline import Pipeline
from ..training import heads as head
from ..training.encoder import add_lora, frozen_encoder, load_tokenizer
from ..training.fit import autocast_of, device_of, fit_module
from ..training.module import RobustModule
from .base import Prediction
from .image_features import WIDTH, check_image
from .late_fusion_data import FusionDataModule, Inputs, View
from .tabular_features import Columns, fit_columns

WEIGHTS, COLUMNS = "fusion/weights.safetensors", "fusion/columns.json"
"""What a run folder keeps: all that was trained, and what the training rows' columns hold."""


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger) -> dict:
    """Train on the raw training rows, and keep the trained weights and the columns; no text of the pipeline is read."""
    inputs = _inputs(config, rows, fit_columns(rows.train))
    data = FusionDataModule(config, rows, inputs)
    steps = data.steps_per_epoch * config.trainer.epochs
    module = RobustModule(config, rows.target, steps, network(config, rows, inputs))
    fitted = fit_module(config, folder, module, data, logger)
    (folder / WEIGHTS).parent.mkdir(exist_ok=True)
    save_file(
        {
            name: weight.detach().cpu().contiguous()
            for name, weight in module.model.named_parameters()
            if weight.requires_grad
        },
        folder / WEIGHTS,
    )
    (folder / COLUMNS).write_text(json.dumps(asdict(inputs.columns), ensure_ascii=False), encoding="utf-8")
    damages = {"noise": config.model.noise, "dropped modalities": config.model.drop_modality}
    damaging = [name for name, level in damages.items() if level and config.perturbation.weight]
    return fitted | {"perturbation": " and ".join(damaging) or "none"}


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> "FusionPredictor":
    """The trained network of a run folder. Raises UserError where there is none."""
    if not (folder / WEIGHTS).is_file():
        raise UserError(
            f"{folder} holds no trained model; train it first: python -m project train "
            f"experiment={config.experiment} method={config.method} seed={config.seed}"
        )
    inputs = _inputs(config, rows, Columns(**json.loads((folder / COLUMNS).read_text(encoding="utf-8"))))
    model = network(config, rows, inputs)
    model.load_state_dict(load_file(folder / WEIGHTS), strict=False)
    return FusionPredictor(config, rows, inputs, model.to(device_of(config.trainer)).eval())


def _inputs(config: Config, rows: Rows, columns: Columns) -> Inputs:
    if "image" in rows.modalities:
        check_image(config)
    return Inputs(config.model, rows.modalities, columns, load_tokenizer(config.model), device_of(config.trainer))


class FusionPredictor:
    """Answers from the raw modalities. The branches know no order: another one changes no answer."""

    def __init__(self, config: Config, rows: Rows, inputs: Inputs, model: nn.Module):
        self.config, self.target, self.inputs, self.model = config, rows.target, inputs, model
        self.train = rows.train

    @torch.inference_mode()
    def __call__(self, records: Sequence[Record], condition: Condition) -> Prediction:
        """The answers for records under a condition."""
        size, found = 4 * self.config.trainer.batch_size, []
        device = next(self.model.parameters()).device
        for start in range(0, len(records), size):
            own = records[start : start + size]
            view = self.inputs.view([corrupt(record, condition, self.train) for record in own], own)
            with autocast_of(self.config):
                found.append(self.model(**_moved(view, device)).logits.float().cpu())
        logits = torch.cat(found)
        how = self.target, self.config.model.head
        return Prediction(head.answers(logits, *how), head.probabilities(logits, *how))


def _moved(view: View, device: torch.device) -> View:
    return {
        name: _moved(value, device) if isinstance(value, dict) else value.to(device) for name, value in view.items()
    }


def network(config: Config, rows: Rows, inputs: Inputs) -> "LateFusion":
    """The untrained network, drawn from the seed: the same whenever a run is loaded again."""
    with torch.random.fork_rng():
        torch.manual_seed(int(seeded("weights", config.seed).integers(2**31)))
        makers = {"image": _image_branch, "text": TextBranch, "table": TableBranch}
        branches = {name: makers[name](config.model, inputs.columns) for name in inputs.branches}
        return LateFusion(config.model, branches, head.num_logits(rows.target, config.model.head))


class LateFusion(nn.Module):
    """The branches' vectors side by side, then one linear layer.

    What stands for a missing modality is zeros, or where modalities are dropped in training a learned vector.
    """

    def __init__(self, config: FusionConfig, branches: dict[str, nn.Module], outputs: int):
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        zeros = {
            name: nn.Parameter(torch.zeros(config.width), requires_grad=config.drop_modality > 0) for name in branches
        }
        self.missing = nn.ParameterDict(zeros)
        self.head = nn.Sequential(nn.Dropout(config.dropout), nn.Linear(config.width * len(branches), outputs))

    def forward(self, present: torch.Tensor, **inputs) -> SequenceClassifierOutput:
        """Logits of shape (rows, outputs) of a View."""
        vectors = [
            torch.where(present[:, index, None], branch(inputs[name]), self.missing[name])
            for index, (name, branch) in enumerate(self.branches.items())
        ]
        return SequenceClassifierOutput(logits=self.head(torch.cat(vectors, -1)))


def _to_vector(size: int, config: FusionConfig) -> nn.Sequential:
    """From what a branch found, shape (rows, size), to its vector, shape (rows, config.width)."""
    return nn.Sequential(nn.LayerNorm(size), nn.Dropout(config.dropout), nn.Linear(size, config.width), nn.GELU())


def _image_branch(config: FusionConfig, columns: Columns) -> nn.Module:
    return SmallConvNet(config) if config.image == "small" else _to_vector(WIDTH, config)


class SmallConvNet(nn.Module):
    """A network of three strided convolutions that is trained from scratch."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        layers, channels = [], 3
        for wider in (32, 64, 128):
            layers += [nn.Conv2d(channels, wider, 3, stride=2, padding=1), nn.GroupNorm(8, wider), nn.GELU()]
            channels = wider
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), _to_vector(channels, config))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """uint8 pixels of shape (rows, 3, side, side) -> (rows, width)."""
        return self.layers((pixels.float() - 127.5) / 64)


class TextBranch(nn.Module):
    """The text methods' encoder with the same adapters; the mean over a text's tokens, as sentence encoders take it."""

    def __init__(self, config: FusionConfig, columns: Columns):
        super().__init__()
        encoder = frozen_encoder(config)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # it reads the first token alone, and is often not trained
        self.encoder = add_lora(encoder, config, TaskType.FEATURE_EXTRACTION, [])
        self.vector = _to_vector(encoder.config.hidden_size, config)

    def forward(self, encodings: dict[str, torch.Tensor]) -> torch.Tensor:
        """Token ids and mask of shape (rows, tokens) -> (rows, width)."""
        states, mask = self.encoder(**encodings).last_hidden_state, encodings["attention_mask"][..., None]
        states = states.to(self.vector[0].weight.dtype)  # from the type of the frozen encoder
        return self.vector((states * mask).sum(1) / mask.sum(1).clamp(min=1))


class TableBranch(nn.Module):
    """Normal scores of the numbers, whether each is missing, and an embedding of each category, through two layers."""

    def __init__(self, config: FusionConfig, columns: Columns):
        super().__init__()
        widths = [min(16, 2 + size // 2) for size in columns.sizes]
        self.embeddings = nn.ModuleList(map(nn.Embedding, columns.sizes, widths))
        size = 2 * len(columns.numbers) + sum(widths)
        self.layers = nn.Sequential(
            nn.Linear(size, config.width),
            nn.GELU(),
            nn.Dropout(config.dropout),
            nn.Linear(config.width, config.width),
            nn.GELU(),
        )

    def forward(self, table: dict[str, torch.Tensor]) -> torch.Tensor:
        """`scores` (rows, numbers) with NaN and `codes` (rows, categories) -> (rows, width)."""
        missing = table["scores"].isnan()
        parts = [table["scores"].nan_to_num(), missing.float()]
        parts += [embed(codes) for embed, codes in zip(self.embeddings, table["codes"].T, strict=True)]
        return self.layers(torch.cat(parts, -1))
