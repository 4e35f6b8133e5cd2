"""Late fusion of the raw modalities, without texts: one branch per modality, and one head on the joined vectors.

The configuration selects the training: plain late fusion, "traditional robust training" by noise on the inputs and
dropout, or modality dropout (Neverova et al. 2015, "ModDrop", arXiv 1501.00102).
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
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
from ..training import heads
from ..training.checkpointing import check_weight_names, trainable_names
from ..training.encoder import add_lora, frozen_encoder, load_tokenizer
from ..training.fit import autocast_of, device_of, fit_module
from ..training.fit_info import FitInfo
from ..training.module import RobustModule
from .base import Prediction
from .image_features import FEATURE_WIDTH, check_image
from .late_fusion_data import FusionDataModule, Inputs, View
from .tabular_features import Columns, fit_columns

_WEIGHTS_FILE, _COLUMNS_FILE = "fusion/weights.safetensors", "fusion/columns.json"
"""Files of a run folder: the trained weights, and the columns of the training rows."""


def fit(config: Config, folder: Path, pipeline: Pipeline, rows: Rows, logger, callbacks=()) -> FitInfo:
    """Train on the raw training rows, and save the trained weights and the columns; the pipeline's texts are unused."""
    inputs = _inputs(config, rows, fit_columns(rows.train))
    data = FusionDataModule(config, rows, inputs)
    steps = data.steps_per_epoch * config.trainer.epochs
    module = RobustModule(config, rows.target, steps, network(config, rows, inputs))
    info = fit_module(config, folder, module, data, logger, callbacks)
    (folder / _WEIGHTS_FILE).parent.mkdir(exist_ok=True)
    save_file(
        {
            name: weight.detach().cpu().contiguous()
            for name, weight in module.model.named_parameters()
            if weight.requires_grad
        },
        folder / _WEIGHTS_FILE,
    )
    (folder / _COLUMNS_FILE).write_text(json.dumps(asdict(inputs.columns), ensure_ascii=False), encoding="utf-8")
    levels = {"noise": config.model.noise, "dropped modalities": config.model.drop_modality}
    augmentations = [name for name, level in levels.items() if level and config.perturbation.weight]
    return replace(info, perturbation=" and ".join(augmentations) or "none")


def load(config: Config, folder: Path, pipeline: Pipeline, rows: Rows) -> "FusionPredictor":
    """Load the trained network of a run folder. Raises UserError if the folder has none."""
    if not (folder / _WEIGHTS_FILE).is_file():
        raise UserError(
            f"{folder} has no trained model; train it first: python -m project train "
            f"experiment={config.experiment} method={config.method} seed={config.seed}"
        )
    inputs = _inputs(config, rows, Columns(**json.loads((folder / _COLUMNS_FILE).read_text(encoding="utf-8"))))
    model = network(config, rows, inputs)
    weights = load_file(folder / _WEIGHTS_FILE)
    check_weight_names(weights, trainable_names(model), folder / _WEIGHTS_FILE)
    model.load_state_dict(weights, strict=False)
    return FusionPredictor(config, rows, inputs, model.to(device_of(config.trainer)).eval())


def _inputs(config: Config, rows: Rows, columns: Columns) -> Inputs:
    if "image" in rows.modalities:
        check_image(config)
    return Inputs(config.model, rows.modalities, columns, load_tokenizer(config.model), device_of(config.trainer))


class FusionPredictor:
    """Answer from the raw modalities. The order of the modalities does not change an answer."""

    def __init__(self, config: Config, rows: Rows, inputs: Inputs, model: nn.Module):
        self.config, self.target, self.inputs, self.model = config, rows.target, inputs, model
        self.train = rows.train

    @torch.inference_mode()
    def __call__(self, records: Sequence[Record], condition: Condition) -> Prediction:
        """Return the answers for records under a condition."""
        size, batch_logits = 4 * self.config.trainer.batch_size, []
        device = next(self.model.parameters()).device
        for start in range(0, len(records), size):
            originals = records[start : start + size]
            view = self.inputs.view([corrupt(record, condition, self.train) for record in originals], originals)
            with autocast_of(self.config):
                batch_logits.append(self.model(**_to_device(view, device)).logits.float().cpu())
        logits = torch.cat(batch_logits)
        target, head = self.target, self.config.model.head
        return Prediction(heads.answers(logits, target, head), heads.probabilities(logits, target, head))


def _to_device(view: View, device: torch.device) -> View:
    return {
        name: _to_device(value, device) if isinstance(value, dict) else value.to(device) for name, value in view.items()
    }


def network(config: Config, rows: Rows, inputs: Inputs) -> "LateFusion":
    """Return the untrained network, initialised from the run's seed, so that loading a run gives the same weights."""
    with torch.random.fork_rng():
        torch.manual_seed(int(seeded("weights", config.seed).integers(2**31)))
        builders = {"image": _image_branch, "text": TextBranch, "table": TableBranch}
        branches = {name: builders[name](config.model, inputs.columns) for name in inputs.branches}
        return LateFusion(config.model, branches, heads.num_logits(rows.target, config.model.head))


class LateFusion(nn.Module):
    """Concatenate the vectors of all branches, then apply dropout and one linear layer.

    A missing modality is replaced by zeros, or by a learned vector if training drops modalities.
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
        """Return logits of shape (rows, outputs); the arguments are the entries of a View."""
        vectors = [
            torch.where(present[:, index, None], branch(inputs[name]), self.missing[name])
            for index, (name, branch) in enumerate(self.branches.items())
        ]
        return SequenceClassifierOutput(logits=self.head(torch.cat(vectors, -1)))


def _to_vector(size: int, config: FusionConfig) -> nn.Sequential:
    """Map the features of a branch, shape (rows, size), to its vector, shape (rows, config.width)."""
    return nn.Sequential(nn.LayerNorm(size), nn.Dropout(config.dropout), nn.Linear(size, config.width), nn.GELU())


def _image_branch(config: FusionConfig, columns: Columns) -> nn.Module:
    return SmallConvNet(config) if config.image == "small" else _to_vector(FEATURE_WIDTH, config)


class SmallConvNet(nn.Module):
    """Three strided convolutions, trained from scratch."""

    def __init__(self, config: FusionConfig):
        super().__init__()
        layers, channels = [], 3
        for width in (32, 64, 128):
            layers += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.GroupNorm(8, width), nn.GELU()]
            channels = width
        self.layers = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), _to_vector(channels, config))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Map uint8 pixels of shape (rows, 3, side, side) to (rows, width)."""
        return self.layers((pixels.float() - 127.5) / 64)


class TextBranch(nn.Module):
    """The encoder and adapters of the text methods, with mean pooling over tokens as in sentence encoders."""

    def __init__(self, config: FusionConfig, columns: Columns):
        super().__init__()
        encoder = frozen_encoder(config)
        if getattr(encoder, "pooler", None) is not None:
            encoder.pooler = None  # it reads only the first token, and is often untrained
        self.encoder = add_lora(encoder, config, TaskType.FEATURE_EXTRACTION, [])
        self.vector = _to_vector(encoder.config.hidden_size, config)

    def forward(self, encodings: dict[str, torch.Tensor]) -> torch.Tensor:
        """Map token ids and mask of shape (rows, tokens) to (rows, width)."""
        states, mask = self.encoder(**encodings).last_hidden_state, encodings["attention_mask"][..., None]
        states = states.to(self.vector[0].weight.dtype)  # from the type of the frozen encoder
        return self.vector((states * mask).sum(1) / mask.sum(1).clamp(min=1))


class TableBranch(nn.Module):
    """Two layers on the normal scores of numbers, their missing flags and the embeddings of categories."""

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
        """Map `scores` (rows, numbers) with NaN and `codes` (rows, categories) to (rows, width)."""
        missing = table["scores"].isnan()
        parts = [table["scores"].nan_to_num(), missing.float()]
        parts += [embed(codes) for embed, codes in zip(self.embeddings, table["codes"].T, strict=True)]
        return self.layers(torch.cat(parts, -1))
