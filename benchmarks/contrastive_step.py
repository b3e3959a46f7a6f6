"""Is our contrastive step as fast as open_clip's own trainer at equal shapes, and how much does a cached frozen image tower save?

The same random checkpoint is trained by `open_clip_train.train.train_one_epoch` and by our task in Lightning's trainer with guard, log
and signal handling, batches in memory, in turns in one process.

    python benchmarks/contrastive_step.py                        CPU: 12 M parameters, batch 32
    python benchmarks/contrastive_step.py --quick                smaller
    python benchmarks/contrastive_step.py --device cuda          ViT-B/32 and B/16 in bfloat16, plain and compiled
"""

from __future__ import annotations

import argparse
import logging
from argparse import Namespace
from collections.abc import Callable
from statistics import median
from typing import Any

import open_clip
import torch
from measure import where, write
from steps import SHAPES, Stopwatch, checkpoint_folder, flops_of, our_batches, our_steps, peak_of

from modalign import zoo
from modalign.zoo.losses.clip import clip_loss

PACKAGES = ("torch", "open-clip-torch", "lightning", "timm")


def their_steps(folder: str, watch: Stopwatch, precision: str) -> Callable[[], float]:
    """open_clip's own loop, as its `main` sets it up for one process: AdamW, clipped gradients, warm-up left out."""
    from open_clip_train.train import train_one_epoch

    logging.disable(logging.INFO)
    model = open_clip.create_model(f"local-dir:{folder}", device=watch.device, output_dict=True)
    exclude = [
        p for n, p in model.named_parameters() if p.ndim < 2 or "bn" in n or "ln" in n or "bias" in n or "logit_scale" in n
    ]
    chosen = {id(p) for p in exclude}
    include = [p for p in model.parameters() if id(p) not in chosen]
    groups = [{"params": exclude, "weight_decay": 0.0}, {"params": include, "weight_decay": 0.2}]
    optimizer = torch.optim.AdamW(groups, lr=1e-4, betas=(0.9, 0.98), eps=1e-6)
    args = Namespace(
        device=str(watch.device),
        precision=precision,
        distill=False,
        accum_freq=1,
        skip_scheduler=True,
        grad_clip_norm=1.0,
        horovod=False,
        rank=0,
        local_rank=0,
        world_size=1,
        log_local=False,
        log_every_n_steps=10,
        batch_size=len(watch.batches[0][0]),
        wandb=False,
    )
    loader = _Loader(watch)
    data = {"train": Namespace(dataloader=loader, set_epoch=lambda epoch: None)}
    loss = open_clip.ClipLoss(cache_labels=True)

    def run() -> float:
        train_one_epoch(model, data, loss, 0, optimizer, None, None, None, args)
        return watch.median_step()

    return run


class _Loader:
    """A stopwatch with the two numbers open_clip's loop asks for."""

    def __init__(self, watch: Stopwatch) -> None:
        self.watch = watch
        self.num_batches, self.num_samples = watch.steps, watch.steps * len(watch.batches[0][0])

    def __iter__(self) -> Any:
        return iter(self.watch)


def measure(shape: str, batch: int, steps: int, rounds: int, device: torch.device, precision: str) -> list[dict[str, Any]]:
    """Rows of the table for one shape."""
    folder = str(checkpoint_folder(shape))
    ours = our_batches(shape, batch, 4)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD))
    theirs = [((b["image"].float() / 255 - mean) / std, b["text_ids"]) for b in ours]
    model = zoo.load(f"local-dir:{folder}")
    cached = zoo.load(f"local-dir:{folder}")
    with torch.no_grad():
        features = [cached.image.below(b["image"], "output") for b in ours]
    held = [
        {k: v for k, v in b.items() if k != "image"} | {"image_features": f, "image_cut": "output"}
        for b, f in zip(ours, features, strict=True)
    ]
    all_roles = dict.fromkeys(sorted({model.role_of(n) for n, _ in model.named_parameters()}), 1e-4)
    lit_roles = {role: lr for role, lr in all_roles.items() if role != "encoder"}
    lightning = {"fp32": "32-true", "amp_bf16": "bf16-mixed"}[precision]
    ways = {
        "open_clip_train": their_steps(folder, Stopwatch(theirs, steps, device), precision),
        "modalign": our_steps(model, all_roles, Stopwatch(ours, steps, device), lightning),
        "modalign, frozen image tower, cached": our_steps(cached, lit_roles, Stopwatch(held, steps, device), lightning),
    }
    if device.type == "cuda":
        fast = zoo.load(f"local-dir:{folder}")
        ways["modalign, compiled"] = our_steps(fast, all_roles, Stopwatch(ours, steps, device), lightning, compiled=True)
    for way in ways.values():
        way()
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            seconds[name].append(way())
    return _rows(shape, batch, seconds, _flops(folder, ours[0], device), device)


def _flops(folder: str, batch: dict[str, Any], device: torch.device) -> int:
    model = zoo.load(f"local-dir:{folder}", str(device))
    moved = {k: v.to(device) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}

    def step() -> None:
        out = model(moved)
        clip_loss(out["image_embedding"], out["text_embedding"], out["logit_scale"]).backward()

    return flops_of(step)


def _rows(shape: str, batch: int, seconds: dict[str, list[float]], flops: int, device: torch.device) -> list[dict[str, Any]]:
    peak, rows = peak_of(device), []
    for name, found in seconds.items():
        against = median(a / b for a, b in zip(found, seconds["open_clip_train"], strict=True))
        step = median(found)
        row = {"shape": shape, "batch": batch, "way": name, "ms per step": round(1000 * step, 1)}
        row |= {"samples/s": round(batch / step, 1), "time against open_clip_train": round(against, 3)}
        if peak is not None and "cached" not in name:
            row["share of the peak"] = f"{flops / step / peak:.1%}"
        rows.append(row)
    return rows


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    device = torch.device(options.device)
    if device.type == "cpu":
        torch.set_num_threads(1)
        jobs = [("tiny", 16, 10)] if options.quick else [("small", 32, 12)]
        precision = "fp32"
    else:
        jobs = [("ViT-B-32", 256, 15)] if options.quick else [("ViT-B-32", 1024, 20), ("ViT-B-16", 512, 20)]
        precision = "amp_bf16"
    rows = [row for shape, batch, steps in jobs for row in measure(shape, batch, steps, options.rounds, device, precision)]
    facts = where(PACKAGES) | {"precision": precision, "rounds": options.rounds}
    if device.type == "cuda":
        facts["gpu"] = torch.cuda.get_device_name(device)
    else:
        facts["clock"] = "CPU time of the process, one thread"
    facts |= {f"shape {shape}": str(SHAPES[shape]) for shape, _, _ in jobs}
    name = "contrastive_step" + ("_gpu" if device.type == "cuda" else "") + ("_quick" if options.quick else "")
    command = "python benchmarks/contrastive_step.py" + (f" --device {options.device}" if device.type == "cuda" else "")
    write(
        name,
        "The contrastive step",
        __doc__.split("\n\n    python")[0],
        command + (" --quick" if options.quick else ""),
        rows,
        facts,
    )


if __name__ == "__main__":
    main()
