"""Memory and time of contrastive losses over a large batch: `python benchmarks/tiled_loss.py [--n 16384] [--device cuda]`.

Each variant runs forward and backward in a fresh process, which reports its peak memory above what it held before the step (inputs,
libraries and a small warm-up step are there by then), its time and its gradients. On a CPU the peak is the kernel's high-water mark of
resident memory (Linux only), reset before the step; on a GPU it is the allocator's. Writes benchmarks/results/NAME.json and NAME.md.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
VARIANTS = {
    "plain": "both logit matrices at once (`clip`)",
    "chunked": "rows of logits at a time, made again in the backward pass (`clip`, chunk: 1024)",
    "tiled": "tiles of logits, both directions from one pass (`tiled_clip`)",
}


def memory(device: str) -> int:
    """Bytes held now."""
    import torch

    if device == "cuda":
        return torch.cuda.memory_allocated()
    return status("VmRSS")


def status(field: str) -> int:
    """A size from the kernel's account of this process, in bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(field))
    return int(line.split()[1]) * 1024


def reset_peak(device: str) -> bool:
    """Starts a new high-water mark; False where the kernel does not allow it and the mark since the process began has to do."""
    import torch

    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return True
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak(device: str) -> int:
    """The high-water mark in bytes."""
    import torch

    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return status("VmHWM")


def build(variant: str, tile: int | None):
    """(image, text, scale) -> loss."""
    from modalign.zoo.losses.clip import clip_loss
    from modalign.zoo.losses.tiled_clip import tiled_clip_loss

    return {
        "plain": clip_loss,
        "chunked": lambda *args: clip_loss(*args, chunk=1024),
        "tiled": lambda *args: tiled_clip_loss(*args, tile=tile),
        "exact": lambda *args: clip_loss(*(arg.double() for arg in args), chunk=1024),
    }[variant]


def measure(variant: str, args: argparse.Namespace, gradients: Path) -> dict:
    """One variant, in this process."""
    import torch

    torch.set_num_threads(args.threads)
    loss = build(variant, args.tile)
    generator = torch.Generator().manual_seed(0)

    def inputs(rows: int):
        # pairs that agree a little, at a scale that leaves something to learn: a loss about half of ln n
        base = torch.randn(rows, args.width, generator=generator)
        sides = [base + 1.5 * torch.randn(rows, args.width, generator=generator) for _ in range(2)]
        vectors = [torch.nn.functional.normalize(side, dim=-1).to(args.device).requires_grad_() for side in sides]
        return [*vectors, torch.tensor(1 / 0.07, device=args.device, requires_grad=True)]

    loss(*inputs(64)).backward()
    tensors = inputs(args.n)
    before, fresh = memory(args.device), reset_peak(args.device)
    seconds, processor = [], []
    for _ in range(args.repeats):
        for tensor in tensors:
            tensor.grad = None
        synchronise(args.device)
        start, used = time.perf_counter(), time.process_time()
        value = loss(*tensors)
        value.backward()
        synchronise(args.device)
        seconds.append(time.perf_counter() - start)
        processor.append(time.process_time() - used)
    top = peak(args.device)
    torch.save([tensor.grad.cpu() for tensor in tensors], gradients)
    return {
        "loss": value.item(),
        "peak_above_baseline_mib": round((top - before) / 2**20, 1),
        "baseline_mib": round(before / 2**20, 1),
        "peak_is_of_the_step": fresh,
        "wall_seconds": round(min(seconds), 3),
        # on a CPU the processor's time, which other work on the machine stretches least
        "seconds": round(min(seconds if args.device == "cuda" else processor), 3),
    }


def synchronise(device: str) -> None:
    """Waits for the device."""
    import torch

    if device == "cuda":
        torch.cuda.synchronize()


def compare(reference: Path, other: Path) -> dict:
    """How far two sets of gradients are apart: largest difference (absolute, and of the largest entry), and in norm."""
    import torch

    found = {}
    pairs = zip(torch.load(reference, weights_only=True), torch.load(other, weights_only=True), strict=True)
    for name, (theirs, mine) in zip(("image", "text", "scale"), pairs, strict=True):
        difference = (mine.double() - theirs.double()).abs()
        found[name] = {
            "absolute": float(difference.max()),
            "of_largest": float(difference.max() / theirs.abs().max()),
            "in_norm": float(difference.norm() / theirs.double().norm()),
        }
    return found


def run(args: argparse.Namespace) -> dict:
    """All variants, each in a process of its own, and what they are to plain logits and to float64."""
    found: dict[str, dict] = {}
    with tempfile.TemporaryDirectory() as folder:
        for variant in (*VARIANTS, "exact"):
            gradients = Path(folder) / f"{variant}.pt"
            options = [f"--{key}={value}" for key, value in settings(args).items() if value is not None]
            command = [sys.executable, __file__, f"--variant={variant}", f"--gradients={gradients}", *options]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            found[variant] = json.loads(done.stdout.splitlines()[-1])
        exact = found.pop("exact")
        for variant, cell in found.items():
            cell["memory_ratio"] = round(cell["peak_above_baseline_mib"] / found["plain"]["peak_above_baseline_mib"], 4)
            cell["time_ratio"] = round(cell["seconds"] / found["plain"]["seconds"], 3)
            cell["loss_minus_float64"] = cell["loss"] - exact["loss"]
            cell["gradients_to_plain"] = compare(Path(folder) / "plain.pt", Path(folder) / f"{variant}.pt")
            cell["gradients_to_float64"] = compare(Path(folder) / "exact.pt", Path(folder) / f"{variant}.pt")
    return found


def settings(args: argparse.Namespace) -> dict:
    """What a run is made of."""
    return {key: getattr(args, key) for key in ("n", "width", "tile", "device", "threads", "repeats")}


def about(args: argparse.Namespace) -> dict:
    """What it was measured with."""
    chosen = " ".join(f"--{key} {value}" for key, value in settings(args).items() if value is not None)
    return {
        "command": f"python benchmarks/tiled_loss.py {chosen}",
        "shape": f"{args.n} pairs of width {args.width}, float32, forward and backward",
        "hardware": hardware(args),
        "versions": {"torch": version("torch"), "python": platform.python_version()},
        "seconds": "the shortest of the repeats; "
        + (
            "wall clock"
            if args.device == "cuda"
            else "of processor time, all threads together, because the machine had other work"
        ),
    }


def hardware(args: argparse.Namespace) -> str:
    """Name and number of processors used."""
    if args.device == "cuda":
        import torch

        return torch.cuda.get_device_name()
    lines = Path("/proc/cpuinfo").read_text().splitlines() if platform.system() == "Linux" else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {args.threads} of {len(names) or '?'} cores used"


def markdown(found: dict, told: dict) -> str:
    """The table."""
    lines = [
        "# Contrastive loss without its logits",
        "",
        "| loss | peak memory above the baseline | of plain | seconds | of plain | gradients: largest difference to plain | "
        "to plain, in norm | to float64, in norm |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for variant, cell in found.items():
        apart = max(part["absolute"] for part in cell["gradients_to_plain"].values())
        plain, exact = (max(part["in_norm"] for part in cell[f"gradients_to_{to}"].values()) for to in ("plain", "float64"))
        lines.append(
            f"| {variant}: {VARIANTS[variant]} | {cell['peak_above_baseline_mib']:.0f} MiB | {100 * cell['memory_ratio']:.1f} % "
            f"| {cell['seconds']:.2f} | {cell['time_ratio']:.2f} | {apart:.1e} | {plain:.1e} | {exact:.1e} |"
        )
    return "\n".join([*lines, "", *(f"- {key}: {value}" for key, value in told.items()), ""])


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--n", type=int, default=16384, help="pairs")
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--tile", type=int, help="rows and columns of a tile; default: the loss's own")
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--name", help="of the result files; default: tiled_loss, with the device if it is no CPU")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the result files")
    parser.add_argument("--variant", choices=[*VARIANTS, "exact"], help=argparse.SUPPRESS)
    parser.add_argument("--gradients", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.variant:
        print(json.dumps(measure(args.variant, args, args.gradients)))
        return
    found, told = run(args), about(args)
    print(markdown(found, told))
    name = args.name or ("tiled_loss" if args.device == "cpu" else f"tiled_loss_{args.device}")
    args.results.mkdir(parents=True, exist_ok=True)
    (args.results / f"{name}.json").write_text(json.dumps({"about": told, "results": found}, indent=1) + "\n")
    (args.results / f"{name}.md").write_text(markdown(found, told))


if __name__ == "__main__":
    main()
