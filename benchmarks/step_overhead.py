"""What do trainer, log, guard and signal handling cost on top of a bare loop of the same step?

The same model, loss, optimiser, clipping and schedule, once in eleven lines of plain torch and once in our task under Lightning's
trainer with metrics log, finite guard, signal polling and checkpoint callback, in turns in one process.

    python benchmarks/step_overhead.py                  CPU
    python benchmarks/step_overhead.py --quick          fewer rounds
    python benchmarks/step_overhead.py --device cuda    ViT-B/32, batch 256, bfloat16
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from measure import where, write
from steps import Stopwatch, checkpoint_folder, our_batches, our_steps

from modalign import zoo
from modalign.trainers.optim import build_optimizer, build_schedule
from modalign.trainers.recipe import StageConfig
from modalign.trainers.roles import select
from modalign.zoo.losses.clip import clip_loss


def bare_steps(model: Any, train: dict[str, float], watch: Stopwatch, autocast: bool) -> Callable[[], float]:
    """The loop one would write by hand."""
    settings = StageConfig(train=train, losses={"clip": {}}, steps=watch.steps, weight_decay=0.2)
    trained = select(model, train, "bench")
    parameters = [entry.parameter for entry in trained]
    model.to(watch.device).train()

    def run() -> float:
        optimizer = build_optimizer(model, trained, settings)
        schedule = build_schedule(optimizer, settings, watch.steps)
        for batch in watch:
            batch = {k: v.to(watch.device, non_blocking=True) if isinstance(v, torch.Tensor) else v for k, v in batch.items()}
            optimizer.zero_grad()
            with torch.autocast(watch.device.type, torch.bfloat16, enabled=autocast):
                out = model(batch)
                loss = clip_loss(out["image_embedding"], out["text_embedding"], out["logit_scale"])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            schedule.step()
            model.after_step()
        return watch.median_step()

    return run


def main() -> None:
    """Parses, measures, writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    device, cuda = torch.device(options.device), options.device != "cpu"
    if not cuda:
        torch.set_num_threads(1)
    jobs = [("ViT-B-32", 256)] if cuda else [("tiny", 16), ("tiny", 80), ("small", 8)]
    rounds, rows = (3 if options.quick else 9), []
    for shape, batch in jobs:
        folder = f"local-dir:{checkpoint_folder(shape)}"
        bare, full = zoo.load(folder), zoo.load(folder)
        roles = dict.fromkeys(sorted({bare.role_of(n) for n, _ in bare.named_parameters()}), 1e-4)
        batches = our_batches(shape, batch, 4)
        ways = {
            "bare": bare_steps(bare, roles, Stopwatch(batches, 25, device), cuda),
            "full": our_steps(full, roles, Stopwatch(batches, 25, device), "bf16-mixed" if cuda else "32-true"),
        }
        for way in ways.values():
            way()
        pairs = [(ways["bare"](), ways["full"]()) for _ in range(rounds)]
        plain, ratio = median(b for b, _ in pairs), median(f / b for b, f in pairs)
        added = median(f - b for b, f in pairs)
        rows.append(
            {
                "shape": shape,
                "batch": batch,
                "bare loop, ms": round(1000 * plain, 1),
                "added, ms": round(1000 * added, 2),
                "time against the bare loop": round(ratio, 3),
            }
        )
    facts = where(("torch", "lightning")) | {"rounds": rounds, "steps per round": 25}
    facts |= {"gpu": torch.cuda.get_device_name(device)} if cuda else {"clock": "CPU time of the process, one thread"}
    name = "step_overhead" + ("_gpu" if cuda else "") + ("_quick" if options.quick else "")
    command = "python benchmarks/step_overhead.py" + (f" --device {options.device}" if cuda else "")
    write(
        name,
        "The trainer's overhead",
        __doc__.split("\n\n    python")[0],
        command + (" --quick" if options.quick else ""),
        rows,
        facts,
    )


if __name__ == "__main__":
    main()
