"""The sections of gpu.py that train."""

import gc
import math
import time
import traceback
from pathlib import Path

import lightning as L
import torch
from gpu_models import BACKBONES, DEVICE, MARKS, SMALL, TINY, saved_model, synchronize
from peft import LoraConfig, TaskType, get_peft_model
from torch.utils.flop_counter import FlopCounterMode
from transformers import AutoModelForSequenceClassification, Trainer, TrainerCallback, TrainingArguments

from project.config.compose import load_config
from project.data.target import Target
from project.training.batching import ResumableLoader
from project.training.module import RobustModule

WARM, STEPS = (1, 2) if SMALL else (4, 15)
"""Steps before the clock starts, and steps that are measured."""
TARGET = Target("class", "a", ("a", "b", "c"))


def half_precision_checkpoints(folder: Path, figures: dict) -> None:
    """Train from checkpoints in half precision, through the project's own loading, and with a base in bfloat16."""
    wrong, steps = [], 25
    for name in BACKBONES:
        for saved, precision, base in (
            ("float16", "32-true", "float32"),
            ("float16", "bf16-mixed", "float32"),
            ("bfloat16", "bf16-mixed", "float32"),
            ("bfloat16", "bf16-mixed", "bfloat16"),
            ("bfloat16", "32-true", "bfloat16"),
        ):
            case = f"{name} {saved} {precision}" + (" base bfloat16" if base == "bfloat16" else "")
            place = folder / f"{name}-{saved}"
            if not place.exists():
                saved_model(place, name, saved, tiny=True)
            config = config_of(place, name, 8, f"model.dtype={base}")
            types, losses = [], [math.nan]
            try:
                module = RobustModule(config, TARGET, steps)
                types = sorted({str(value.dtype)[6:] for value in module.parameters() if value.requires_grad})
                losses = train(module, batches(steps, 8, 32), precision)["losses"]
            except Exception as error:
                traceback.print_exc()
                figures[case] = {"error": f"{type(error).__name__}: {error}".splitlines()[0][:200]}
            else:
                bad = next((step for step, loss in enumerate(losses) if not math.isfinite(loss)), None)
                last = round(losses[-1], 4) if bad is None else None
                figures[case] = {"trainable": types, "last_loss": last, "not_finite_from_step": bad}
            if types != ["float32"] or not all(map(math.isfinite, losses)):
                wrong.append(case)
    figures["wrong"] = wrong
    if wrong:
        raise AssertionError(f"not float32 or not finite: {', '.join(wrong)}")


def throughput(folder: Path, figures: dict) -> None:
    """Training at real widths, and the ratios that have bars."""
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    figures["matmul_tflops"] = round(ceiling() / 1e12, 3)
    sizes = (2, 4) if SMALL else (16, 64)
    large = sizes[-1]

    def module(name: str, size: int, *more: str):
        return RobustModule(config_of(folder / name, name, size, *more), TARGET, 100)

    for name in ("deberta-v3", "modernbert", "qwen3-0.6b"):
        saved_model(folder / name, name)
        for size in sizes:
            case = f"{name} batch {size}"
            if size == sizes[0]:
                flops = step_flops(module(name, size), batches(1, size, 128)[0]) / size
            speed = measured(module(name, size), size)
            reached = flops * speed["samples_per_second"] / 1e12
            figures[case] = speed | {
                "tflops": round(reached, 3),
                "share": round(reached / figures["matmul_tflops"], 4),
            }
        figures[f"{case} base bfloat16"] = measured(module(name, large, "model.dtype=bfloat16"), large)
    name, case = "deberta-v3", f"deberta-v3 batch {large}"
    figures["trainer"] = trainer_of_transformers(config_of(folder / name, name, large), large)
    figures["float32"] = measured(module(name, large), large, "32-true")
    figures["ddp"] = measured(module(name, large), large, strategy="ddp")
    speed = "samples_per_second"
    figures["bf16_over_float32"] = round(figures[case][speed] / figures["float32"][speed], 3)
    figures["ddp_over_one_device"] = round(figures["ddp"][speed] / figures[case][speed], 3)
    figures["speed_over_trainer"] = round(figures[case][speed] / figures["trainer"][speed], 3)
    memory = figures[case]["peak_memory_mb"], figures["trainer"]["peak_memory_mb"]
    figures["memory_over_trainer"] = None if SMALL else round(memory[0] / memory[1], 3)


def compile(folder: Path, figures: dict) -> None:
    """A compiled training step over a plain one; recorded, without a bar."""
    name, size = "modernbert", 4 if SMALL else 16
    saved_model(folder / name, name)
    config = config_of(folder / name, name, size)
    figures["plain"] = measured(RobustModule(config, TARGET, 100), size)
    module = RobustModule(config, TARGET, 100)
    module.model.compile(dynamic=True, backend="eager" if SMALL else "inductor")
    start = time.perf_counter()
    figures["compiled"] = measured(module, size)
    figures["compiled"]["seconds_with_compilation"] = round(time.perf_counter() - start, 1)
    speed = "samples_per_second"
    figures["compiled_over_plain"] = round(figures["compiled"][speed] / figures["plain"][speed], 3)


def config_of(folder: Path, name: str, batch_size: int, *more: str):
    """The project's configuration for a backbone: one view of each row."""
    return load_config(
        [
            "method=plain",
            "model=minilm",
            f"model.encoder={folder}",
            f"model.lora.targets=[{BACKBONES[name][3]}]",
            "perturbation.weight=0",
            f"trainer.batch_size={batch_size}",
            *more,
        ]
    )


def batches(count: int, size: int, tokens: int) -> list[dict]:
    """Random token ids, as the data module hands them out; a label follows from the first token."""
    ids = torch.randint(len(MARKS), TINY["vocab_size"], (count, size, tokens), generator=torch.manual_seed(0))
    return [
        {"views": [{"input_ids": some, "attention_mask": torch.ones_like(some)}], "labels": some[:, 0] % 3}
        for some in ids
    ]


def train(module, data: list[dict], precision: str, strategy: str = "auto") -> dict:
    """Train the project's module; losses, and the seconds of the steps after the first WARM."""

    class Clock(L.Callback):
        losses, start = [], 0.0

        def on_train_batch_start(self, trainer, module, batch, batch_idx):
            if batch_idx == WARM:
                synchronize()
                self.start = time.perf_counter()

        def on_train_batch_end(self, trainer, module, outputs, batch, batch_idx):
            self.losses.append(outputs["loss"].detach())

        def on_train_end(self, trainer, module):
            synchronize()
            self.seconds = time.perf_counter() - self.start

    clock = Clock()
    clock.losses = []
    L.Trainer(
        max_epochs=1,
        accelerator="cpu" if SMALL else "gpu",
        devices=1,
        strategy=strategy,
        precision=precision,
        gradient_clip_val=module.config.trainer.clip,
        callbacks=[clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        limit_val_batches=0,
    ).fit(module, ResumableLoader(lambda start: iter(data), len(data)))
    return {"losses": [float(loss) for loss in clock.losses], "seconds": clock.seconds, "steps": len(data) - WARM}


def peak_memory(of) -> tuple[dict, float | None]:
    """What `of` returns, and the most memory in MB that its tensors took on the GPU."""
    gc.collect()
    if SMALL:
        return of(), None
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    figures = of()
    return figures, round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def measured(module, size: int, precision: str = "bf16-mixed", strategy: str = "auto") -> dict:
    """Speed and memory of training steps on samples of 128 tokens."""
    data = batches(WARM + STEPS, size, 128)
    found, memory = peak_memory(lambda: train(module, data, precision, strategy))
    return rates(found["steps"], found["seconds"], size, memory)


def rates(steps: int, seconds: float, size: int, memory: float | None) -> dict:
    """Steps, samples and tokens for each second."""
    speed = steps / seconds
    figures = {"steps_per_second": speed, "samples_per_second": speed * size, "tokens_per_second": speed * size * 128}
    return {name: round(value, 2) for name, value in figures.items()} | {"peak_memory_mb": memory}


def ceiling() -> float:
    """FLOP/s of a large product of matrices in bfloat16."""
    size = 256 if SMALL else 8192
    left, right = (torch.randn(size, size, device=DEVICE, dtype=torch.bfloat16) for _ in range(2))
    for turn in range(23):
        if turn == 3:
            synchronize()
            start = time.perf_counter()
        left @ right
    synchronize()
    return 20 * 2 * size**3 / (time.perf_counter() - start)


def step_flops(module, batch: dict) -> int:
    """FLOPs of the matrix products and the attention in one step, forward and backward."""
    module = module.to(DEVICE)
    module.model.base_model.model.set_attn_implementation("eager")  # the counter knows no grouped-query attention
    view = {name: values.to(DEVICE) for name, values in batch["views"][0].items()}
    with FlopCounterMode(display=False) as counter, torch.autocast(DEVICE, dtype=torch.bfloat16):
        module(view).float().sum().backward()
    return counter.get_total_flops()


def trainer_of_transformers(config, size: int) -> dict:
    """The same training steps by transformers' Trainer with peft."""

    class Clock(TrainerCallback):
        def on_step_begin(self, args, state, control, **more):
            if state.global_step == WARM:
                synchronize()
                self.start = time.perf_counter()

        def on_train_end(self, args, state, control, **more):
            synchronize()
            self.seconds = time.perf_counter() - self.start

    lora = config.model.lora
    rows = [
        {"input_ids": ids, "attention_mask": mask, "labels": label}
        for batch in batches(WARM + STEPS, size, 128)
        for ids, mask, label in zip(*batch["views"][0].values(), batch["labels"], strict=True)
    ]
    clock = Clock()

    def run() -> None:
        model = get_peft_model(
            AutoModelForSequenceClassification.from_pretrained(config.model.encoder, num_labels=3, dtype=torch.float32),
            LoraConfig(
                TaskType.SEQ_CLS,
                r=lora.r,
                lora_alpha=lora.alpha,
                lora_dropout=lora.dropout,
                target_modules=list(lora.targets),
                modules_to_save=["pooler", "classifier"],
            ),
        )
        options = TrainingArguments(
            output_dir=f"{config.model.encoder}-trainer",
            max_steps=WARM + STEPS,
            per_device_train_batch_size=size,
            use_cpu=SMALL,
            bf16=True,
            learning_rate=config.trainer.lr,
            weight_decay=config.trainer.weight_decay,
            max_grad_norm=config.trainer.clip,
            logging_strategy="no",
            save_strategy="no",
            report_to=[],
            disable_tqdm=True,
        )
        Trainer(model=model, args=options, train_dataset=rows, callbacks=[clock]).train()

    _, memory = peak_memory(run)
    return rates(STEPS, clock.seconds, size, memory)
