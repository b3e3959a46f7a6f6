"""What the step benchmarks share: one small CLIP in open_clip's layout, batches in memory, a clock read where a batch is asked for."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import lightning.pytorch as pl
import open_clip
import torch

from modalign.trainers.callbacks.csv_log import CsvLog
from modalign.trainers.callbacks.meter import Meter
from modalign.trainers.callbacks.stop import StopOnSignal
from modalign.trainers.checkpoint_io import AtomicCheckpointIO
from modalign.trainers.console import quiet_libraries
from modalign.trainers.objective import Objective
from modalign.trainers.recipe import StageConfig
from modalign.trainers.roles import freeze, select
from modalign.trainers.task import TrainingTask

#: name -> (image side, patch, image width, image layers, text context, text width, text heads, text layers, joint width)
SHAPES = {
    "tiny": (64, 16, 64, 2, 16, 64, 2, 2, 64),
    "small": (112, 16, 256, 6, 32, 256, 4, 6, 256),
    "ViT-B-32": (224, 32, 768, 12, 77, 512, 8, 12, 512),
    "ViT-B-16": (224, 16, 768, 12, 77, 512, 8, 12, 512),
}
#: dense bfloat16 peak of a device, in FLOP per second, by a part of its name
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}


def model_config(shape: str) -> dict[str, Any]:
    """open_clip's model configuration of a shape."""
    side, patch, width, layers, context, text_width, heads, text_layers, joint = SHAPES[shape]
    return {
        "embed_dim": joint,
        "vision_cfg": {
            "image_size": side,
            "patch_size": patch,
            "width": width,
            "layers": layers,
            "head_width": min(64, width // 2),
        },
        "text_cfg": {
            "context_length": context,
            "vocab_size": 49408,
            "width": text_width,
            "heads": heads,
            "layers": text_layers,
        },
    }


def checkpoint_folder(shape: str) -> Path:
    """A random checkpoint of a shape in open_clip's own layout."""
    folder = Path(tempfile.mkdtemp(prefix="modalign-bench-"))
    config = model_config(shape)
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    torch.save(model.state_dict(), folder / "open_clip_pytorch_model.bin")
    preprocess = {
        "mean": list(open_clip.OPENAI_DATASET_MEAN),
        "std": list(open_clip.OPENAI_DATASET_STD),
        "interpolation": "bicubic",
    }
    about = {"model_cfg": config, "preprocess_cfg": preprocess | {"resize_mode": "shortest", "size": SHAPES[shape][0]}}
    (folder / "open_clip_config.json").write_text(json.dumps(about))
    return folder


def tokens(shape: str, batch: int, generator: torch.Generator) -> torch.Tensor:
    """Random captions of full length, with start and end of text."""
    ids = torch.randint(1, 49000, (batch, SHAPES[shape][4]), generator=generator)
    ids[:, 0], ids[:, -1] = 49406, 49407
    return ids


def our_batches(shape: str, batch: int, count: int) -> list[dict[str, Any]]:
    """Batches as our loader gives them: uint8 pixels, token ids."""
    generator = torch.Generator().manual_seed(0)
    side = SHAPES[shape][0]
    return [
        {
            "image": torch.randint(0, 256, (batch, 3, side, side), dtype=torch.uint8, generator=generator),
            "text_ids": tokens(shape, batch, generator),
            "text_mask": torch.ones(batch, SHAPES[shape][4], dtype=torch.int64),
            "keys": [f"k{i}" for i in range(batch)],
        }
        for _ in range(count)
    ]


@dataclass
class Stopwatch:
    """Hands out batches over and over and notes the time at each; the step lies between two of them.

    Attributes:
        batches: What is handed out.
        steps: How often.
        device: Synchronised before the clock is read.
    """

    batches: list[Any]
    steps: int
    device: torch.device
    times: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Any]:
        self.times = []
        for step in range(self.steps):
            self.tick()
            yield self.batches[step % len(self.batches)]

    def tick(self) -> None:
        """Notes the time: of the processor where it computes, of the wall where a device does."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()
            self.times.append(time.perf_counter())
        else:
            self.times.append(time.process_time())

    def median_step(self, skip: int = 3) -> float:
        """Seconds per step, without the first ones."""
        return median(b - a for a, b in zip(self.times[skip:], self.times[skip + 1 :], strict=False))


def our_steps(
    model: Any, train: dict[str, float], watch: Stopwatch, precision: str = "32-true", compiled: bool = False
) -> Callable[[], float]:
    """Our whole step: task, guard, log, signals, checkpoint callback, in Lightning's trainer; returns seconds per step when called."""
    quiet_libraries()
    settings = StageConfig(train=train, losses={"clip": {}}, steps=watch.steps, weight_decay=0.2, clip_norm=1.0)
    trained = select(model, settings.train, "bench")
    freeze(model, trained)
    folder = Path(tempfile.mkdtemp(prefix="modalign-bench-"))

    def run() -> float:
        task = TrainingTask(model, Objective(settings.losses), trained, settings, watch.steps, 0, compiles=compiled)
        batch = len(watch.batches[0]["keys"])
        trainer = pl.Trainer(
            accelerator="gpu" if watch.device.type == "cuda" else "cpu",
            devices=1,
            precision=precision,  # type: ignore[arg-type]
            max_epochs=1,
            gradient_clip_val=settings.clip_norm,
            logger=[CsvLog(folder / "metrics.csv", "bench")],
            log_every_n_steps=10**9,
            callbacks=[
                Meter(batch, 10, watch.steps),
                StopOnSignal(folder),
                pl.callbacks.ModelCheckpoint(dirpath=folder, every_n_train_steps=10**9),
            ],
            plugins=[AtomicCheckpointIO()],
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=True,
        )
        trainer.fit(task, train_dataloaders=watch)
        return watch.median_step()

    return run


def flops_of(step: Callable[[], Any]) -> int:
    """Floating-point operations of one call, as torch counts its matrix products and convolutions."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        step()
    return counter.get_total_flops()


def peak_of(device: torch.device) -> float | None:
    """Dense bfloat16 peak of the device, where it is known."""
    if device.type != "cuda":
        return None
    name = torch.cuda.get_device_name(device)
    return next((peak for part, peak in PEAKS.items() if part in name), None)
