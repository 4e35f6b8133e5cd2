"""The LightningModule: a network, by default a LoRA transformer, learns from the clean view and the perturbed one."""

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
from . import heads as head
from .batching import all_reduce_sum
from .encoder import base_model, lora_classifier
from .freelb import freelb


class RobustModule(L.LightningModule):
    """Trains a network with the loss task(clean) + weight x task(perturbed), without `model` the LoRA transformer.

    With `perturbation.consistency` the weighted disagreement of the two predictions is added. With kind freelb the loss
    is that of the clean text with its embeddings moved.

    Called with a view, `model` gives `logits`. Validation logs val/score (the target's metric averaged over the panel's
    conditions), val/clean and val/drop_ratio.
    """

    strict_loading = False  # checkpoints hold what is trained, such as the adapter and the head, alone

    def __init__(self, config: Config, target: Target, total_steps: int, model: torch.nn.Module | None = None):
        super().__init__()
        self.config, self.target, self.total_steps = config, target, total_steps
        if model is None:
            model = lora_classifier(base_model(config.model, target, config.seed), config.model)
            if config.trainer.activation_checkpointing:
                model.gradient_checkpointing_enable({"use_reentrant": False})
        # transformers loads in evaluation mode, which Lightning would keep: dropout would never be active.
        self.model = model.train()
        # By name, and now: FSDP divides the weights, and names the parts.
        self._kept = {name for name, weight in self.named_parameters() if weight.requires_grad}
        self._weight = 1.0
        self._seen: list[tuple[torch.Tensor, torch.Tensor]] = []
        self.forward_samples = 0
        self.scoring_samples, self.scoring_seconds = 0, 0.0

    def forward(self, encodings: dict[str, torch.Tensor]) -> torch.Tensor:
        """Logits, shape (rows, width of the head)."""
        return self.model(**encodings).logits

    def on_train_batch_start(self, batch: dict, batch_idx: int) -> None:
        """Dropout follows from (seed, step, part of the step): a resumed run draws what an undisturbed one does.

        And so do two devices and two passes of one.
        """
        trainer = self._trainer
        turn = batch_idx % trainer.accumulate_grad_batches * trainer.world_size + self.global_rank if trainer else 0
        torch.manual_seed(int(seeded("dropout", self.config.seed, self.global_step, turn).integers(2**31)))
        self._weight = batch.get("weight", 1.0)

    def training_step(self, batch: dict, batch_idx: int) -> torch.Tensor:
        """The loss, shape (); the views are read one after the other, and their losses logged apart.

        A batch has `labels` of shape (rows,), and `views`: the clean one, then the candidates for the perturbed one,
        each a dict of what the tokenizer gives, shape (rows, tokens). Clean and perturbed are padded apart.
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
            apart = head.symmetric_kl(*logits, self.target, self.config.model.head)
            self.log("train/disagreement", apart)
            loss = loss + perturbation.consistency * apart
        self.log("train/loss", loss)
        return loss

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor, each: bool = False) -> torch.Tensor:
        return head.loss(logits, labels, self.target, self.config.model.head, each)

    @torch.no_grad()
    def select_hardest_view(
        self, candidates: list[dict[str, torch.Tensor]], labels: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Of each row's candidates, all padded to one length, the one with the highest loss: the min-max step's max.

        Candidates and what is returned are views, with values of shape (rows, tokens); `labels` has shape (rows,).
        The loss is the current weights' own, without dropout, so that no mask decides. What it costs is counted in
        scoring_samples and scoring_seconds, apart from the forward samples that are learned from.
        """
        if len(candidates) == 1:
            return candidates[0]
        began, training = time.perf_counter(), self.model.training
        self.model.eval()
        losses = torch.stack([self._loss(self(view), labels, each=True) for view in candidates])
        self.model.train(training)
        chosen, rows = losses.argmax(0), torch.arange(len(labels), device=losses.device)
        picked = {name: torch.stack([view[name] for view in candidates])[chosen, rows] for name in candidates[0]}
        read = picked["attention_mask"].any(0)  # what only the others needed is cut off
        picked = {name: values[:, read] for name, values in picked.items()}
        self.scoring_samples += losses.numel()
        self.scoring_seconds += time.perf_counter() - began
        return picked

    def backward(self, loss: torch.Tensor) -> None:
        """The gradient of the part's share in the step's mean loss, which has shape ()."""
        super().backward(loss * self._weight)

    def validation_step(self, batch: dict, batch_idx: int) -> None:
        """Collect what each row adds to the score, by condition."""
        found = head.answers(self(batch["views"][0]).float(), self.target, self.config.model.head)
        values = SCORES[self.target.metric].of_rows(batch["targets"], found)
        self._seen.append((torch.as_tensor(values), batch["conditions"].cpu()))

    def on_validation_epoch_end(self) -> None:
        """Scores of the panel, of all ranks' rows. Every choice is made on these, none on the test rows."""
        values, conditions = (torch.cat(column) for column in zip(*self._seen, strict=True))
        self._seen.clear()
        # A row that is read twice, to give all ranks equally many batches, has the condition -1.
        of = [conditions == index for index in range(1 + len(self.config.robustness.val_levels))]
        mine = torch.stack([torch.stack([values[rows].double().sum(), rows.sum()]) for rows in of])
        score = SCORES[self.target.metric]
        scores = [
            float(score.of_mean((total / count).item())) for total, count in all_reduce_sum(mine, self.device) if count
        ]
        for name, value in panel_summary(scores, self.target.metric).items():  # equal on all ranks
            self.log(f"val/{name}", value, prog_bar=name != "clean", sync_dist=True)

    def configure_optimizers(self):
        """AdamW on what is trainable; linear warm-up, then linear decay to zero."""
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
        """Keep what is trained; the base weights are where they came from."""
        checkpoint["state_dict"] = {
            name: value for name, value in checkpoint["state_dict"].items() if name in self._kept
        }
        counts = all_reduce_sum(torch.tensor([self.forward_samples, self.scoring_samples]), self.device)
        checkpoint["forward_samples"], checkpoint["scoring_samples"] = counts.tolist()
        checkpoint["scoring_seconds"] = self.scoring_seconds

    def on_load_checkpoint(self, checkpoint: dict) -> None:
        """Take up the counts of samples, which are all ranks'."""
        first = rank_zero_only.rank == 0
        self.forward_samples = checkpoint["forward_samples"] if first else 0
        self.scoring_samples = checkpoint["scoring_samples"] if first else 0
        self.scoring_seconds = checkpoint["scoring_seconds"]

    def configure_gradient_clipping(self, optimizer, gradient_clip_val=None, gradient_clip_algorithm=None) -> None:
        """Clip the norm of the whole gradient; where FSDP holds parts of it, only FSDP can tell it."""
        if isinstance(self.trainer.strategy, FSDPStrategy):
            self.trainer.strategy.model.clip_grad_norm_(gradient_clip_val)
        elif gradient_clip_val:  # Lightning's own clipping refuses a fused optimizer
            torch.nn.utils.clip_grad_norm_(self.parameters(), gradient_clip_val)
