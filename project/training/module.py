"""The LightningModule: train a network, by default a LoRA transformer, on the clean view and the perturbed one."""

import time

import lightning as L
import torch
from lightning.pytorch.strategies import FSDPStrategy
from lightning.pytorch.utilities import rank_zero_only

from ..config.schema import Config
from ..data.record import seeded
from ..data.target import Target
from ..metrics.panel import panel_summary
from ..metrics.scores import SCORES
from . import heads
from .batching import all_reduce_sum
from .checkpointing import check_weight_names, trainable_names
from .encoder import base_model, lora_classifier
from .freelb import freelb


class RobustModule(L.LightningModule):
    """Train a network with the loss task(clean) + weight x task(perturbed); `model` defaults to the LoRA transformer.

    `perturbation.consistency` adds the weighted disagreement of the two predictions. With kind freelb the loss is that
    of the clean text with perturbed embeddings.

    `model` takes a view and returns an object with `logits`. Validation logs val/score (the target's metric averaged
    over the conditions of the panel), val/clean and val/drop_ratio.
    """

    strict_loading = False  # checkpoints hold trainable weights only, such as the adapter and the head

    def __init__(self, config: Config, target: Target, total_steps: int, model: torch.nn.Module | None = None):
        super().__init__()
        self.config, self.target, self.total_steps = config, target, total_steps
        if model is None:
            model = lora_classifier(base_model(config.model, target, config.seed), config.model)
            if config.trainer.activation_checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers loads models in evaluation mode; Lightning keeps it, so dropout would never be active.
        self.model = model.train()
        # Collected now, because FSDP later shards and renames the weights.
        self._trainable = trainable_names(self)
        self._weight = 1.0
        self._validation_values: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.forward_samples = 0
        self.scoring_samples, self.scoring_seconds = 0, 0.0

    def forward(self, encodings: dict[str, torch.Tensor]) -> torch.Tensor:
        """Return logits, shape (rows, width of the head)."""
        return self.model(**encodings).logits

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        """Seed dropout from (seed, step, micro-batch), so that a resumed run draws the same masks.

        The masks match between 2 devices and 2 accumulation steps.
        """
        trainer = self._trainer
        index = batch_idx % trainer.accumulate_grad_batches * trainer.world_size + self.global_rank if trainer else 0
        torch.manual_seed(int(seeded("dropout", self.config.seed, self.global_step, index).integers(2**31)))
        self._weight = batch.get("weight", 1.0)

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """Return the loss, shape (); each view has its own forward pass and its own logged loss.

        A batch has `labels` of shape (rows,), and `views`: the clean one, then the candidates for the perturbed one,
        each a dict of the tokenizer's outputs, shape (rows, tokens). Clean and perturbed views are padded separately.
        """
        labels, perturbation = batch["labels"], self.config.perturbation
        view, *candidates = batch["views"]
        if perturbation.kind == "freelb":
            loss = freelb(self.model, view, lambda logits: self._loss(logits, labels), perturbation.ascent)
            self.forward_samples += len(labels) * perturbation.ascent.steps
            self.log("train/loss", loss)
            return loss
        views = [view, self.select_hardest_view(candidates, labels)] if candidates else [view]
        logits = [self(view) for view in views]
        self.forward_samples += len(labels) * len(logits)
        loss = clean = self._loss(logits[0], labels)
        self.log("train/loss_clean", clean)
        if len(logits) > 1:
            perturbed = self._loss(logits[1], labels)
            self.log("train/loss_perturbed", perturbed)
            loss = clean + perturbation.weight * perturbed
        if perturbation.consistency:
            disagreement = heads.symmetric_kl(*logits, self.target, self.config.model.head)
            self.log("train/disagreement", disagreement)
            loss = loss + perturbation.consistency * disagreement
        self.log("train/loss", loss)
        return loss

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, per_row: bool = False) -> torch.Tensor:
        return heads.loss(logits, labels, self.target, self.config.model.head, per_row)

    @torch.no_grad()
    def select_hardest_view(
        self, candidates: list[dict[str, torch.Tensor]], labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Select each row's candidate with the highest loss: the maximization of the min-max objective.

        The candidates, all padded to one length, and the returned view have values of shape (rows, tokens); `labels`
        has shape (rows,). The loss is that of the current weights without dropout, so that no mask decides. The cost
        is counted in scoring_samples and scoring_seconds, not in forward_samples.
        """
        if len(candidates) == 1:
            return candidates[0]
        start, training = time.perf_counter(), self.model.training
        self.model.eval()
        losses = torch.stack([self._loss(self(view), labels, per_row=True) for view in candidates])
        self.model.train(training)
        hardest, rows = losses.argmax(0), torch.arange(len(labels), device=losses.device)
        selected = {name: torch.stack([view[name] for view in candidates])[hardest, rows] for name in candidates[0]}
        is_used = selected["attention_mask"].any(0)  # drop the columns that only other candidates needed
        selected = {name: values[:, is_used] for name, values in selected.items()}
        self.scoring_samples += losses.numel()
        self.scoring_seconds += time.perf_counter() - start
        return selected

    def backward(self, loss: torch.Tensor) -> None:
        """Backpropagate the loss, shape (), scaled by the weight of this micro-batch in the step's mean loss."""
        super().backward(loss * self._weight)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Collect each row's contribution to the score and its condition."""
        answers = heads.answers(self(batch["views"][0]).float(), self.target, self.config.model.head)
        values = SCORES[self.target.metric].of_rows(batch["targets"], answers)
        self._validation_values.append((torch.as_tensor(values), batch["conditions"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Log the panel's scores over the rows of all ranks. Every choice uses these scores, none the test rows."""
        values, conditions = (torch.cat(column) for column in zip(*self._validation_values, strict=True))
        self._validation_values.clear()
        # Rows that are read twice, to give all ranks the same number of batches, have condition -1.
        masks = [conditions == index for index in range(1 + len(self.config.robustness.val_levels))]
        sums = torch.stack([torch.stack([values[mask].double().sum(), mask.sum()]) for mask in masks])
        score = SCORES[self.target.metric]
        scores = [
            float(score.of_mean((total / count).item())) for total, count in all_reduce_sum(sums, self.device) if count
        ]
        for name, value in panel_summary(scores, self.target.metric).items():  # equal on all ranks
            self.log(f"val/{name}", value, prog_bar=name != "clean", sync_dist=True)

    def configure_optimizers(self):
        """Return AdamW on the trainable weights, with linear warm-up, then linear decay to zero."""
        trainer = self.config.trainer
        optimizer = torch.optim.AdamW(
            [weight for weight in self.parameters() if weight.requires_grad],
            lr=trainer.lr,
            weight_decay=trainer.weight_decay,
            fused=(self.device.type == "cuda" and trainer.precision not in ("16", "16-mixed")) or None,
        )
        warmup = max(1, round(trainer.warmup * self.total_steps))
        rest = max(1, self.total_steps - warmup)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: min((step + 1) / warmup, max(0.0, (self.total_steps - step) / rest))
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict) -> None:
        """Save trainable weights only, and the sample counts summed over all ranks."""
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in self._trainable
        }
        counts = all_reduce_sum(torch.tensor([self.forward_samples, self.scoring_samples]), self.device)
        checkpoint["forward_samples"], checkpoint["scoring_samples"] = counts.tolist()
        checkpoint["scoring_seconds"] = self.scoring_seconds

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Restore the sample counts on the first rank, because they are sums over all ranks.

        Raises UserError if the checkpoint lacks a trainable weight or has another one.
        """
        if "state_dict" in checkpoint:  # FSDP has already loaded and removed it
            check_weight_names(checkpoint["state_dict"], self._trainable, self.trainer.ckpt_path)
        first = rank_zero_only.rank == 0
        self.forward_samples = checkpoint["forward_samples"] if first else 0
        self.scoring_samples = checkpoint["scoring_samples"] if first else 0
        self.scoring_seconds = checkpoint["scoring_seconds"]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip the norm of the full gradient; if it is sharded, only FSDP can compute that norm."""
        if isinstance(self.trainer.strategy, FSDPStrategy):
            self.trainer.strategy.model.clip_grad_norm_(gradient_clip_val)
        elif gradient_clip_val:  # Lightning's own clipping refuses a fused optimizer
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
