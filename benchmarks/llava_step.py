"""A training step of a stack beside transformers' own LLaVA step: `python benchmarks/llava_step.py [--device cuda] [--rounds 15]`.

The same weights, batches, optimiser and precision; the same loss (checked). Stage 1 trains the projector, stage 2 the language model too.
On a GPU the model is larger (`--size small` is what a CPU takes).
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measure import interleaved, ratio, where, write
from torch import Tensor

from modalign.zoo.checkpoints.llava.base import load_llava
from modalign.zoo.language.encode import IGNORE, IMAGE_PLACEHOLDER
from modalign.zoo.losses.next_token import NextTokenLoss
from modalign.zoo.losses.parts.linear_cross_entropy import linear_cross_entropy
from modalign.zoo.stack.packing import packed
from modalign.zoo.stack.prepare import pictures_of

SIZES = {
    # the anchor's: CLIP-ViT of 6 x 256 with 64 tokens, Llama of 8 x 320 with 8,192 words, 4 x 128 tokens
    "small": {"vision": (256, 6, 4, 16, 128), "text": (320, 8, 5, 864, 8192), "batch": 4, "length": 128},
    "large": {"vision": (1024, 24, 16, 14, 336), "text": (2048, 22, 16, 5632, 32000), "batch": 8, "length": 1024},
}


def folder_of(size: dict[str, Any], place: Path) -> Path:
    """A random LLaVA folder of transformers, with a tokenizer and a processor."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        PreTrainedTokenizerFast,
    )

    width, layers, heads, patch, side = size["vision"]
    vision = CLIPVisionConfig(
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=4 * width,
        patch_size=patch,
        image_size=side,
    )
    hidden, blocks, heads, inner, vocabulary = size["text"]
    text = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=blocks,
        num_attention_heads=heads,
        num_key_value_heads=heads,
        intermediate_size=inner,
        vocab_size=vocabulary,
        max_position_embeddings=4096,
    )
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=vocabulary - 1, image_seq_length=(side // patch) ** 2
    )
    LlavaForConditionalGeneration(config).save_pretrained(place)
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<s>": 1, "</s>": 2}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, bos_token="<s>", eos_token="</s>", unk_token="<unk>").save_pretrained(place)
    CLIPImageProcessor(size={"shortest_edge": side}, crop_size={"height": side, "width": side}).save_pretrained(place)
    return place


def examples(model: Any, lengths: list[int], vocabulary: int, share: float = 1 / 3) -> list[dict[str, Any]]:
    """Conversations of given lengths: a picture, then words, the last `share` of all positions to be learnt."""
    generator = torch.Generator().manual_seed(0)
    tokens, side = model.layout.tokens_per_tile, model.image.preprocess.size
    found = []
    for number, length in enumerate(lengths):
        words = torch.randint(3, vocabulary - 1, (length - tokens,), generator=generator).tolist()
        ids = [IMAGE_PLACEHOLDER] * tokens + words
        learnt = round(share * length)
        labels = [IGNORE] * (length - learnt) + ids[length - learnt :]
        found.append(
            {
                "key": str(number),
                "ids": ids,
                "labels": labels,
                "instruction": [False] * length,
                "lengths": [tokens],
                "tiles": [1],
                "sizes": [(side, side)],
                "image": torch.randint(0, 256, (1, 3, side, side), dtype=torch.uint8, generator=generator),
            }
        )
    return found


def to_hf(batch: dict[str, Any], model: Any, theirs: Any) -> dict[str, Tensor]:
    """The batch as transformers takes it."""
    ids = batch["ids"].masked_fill(batch["ids"] == IMAGE_PLACEHOLDER, theirs.config.image_token_id)
    return {
        "input_ids": ids,
        "labels": batch["labels"],
        "attention_mask": batch["mask"].long(),
        "pixel_values": model.image.normalise(batch["image"]),
    }


class Steps:
    """Training steps of both sides."""

    def __init__(self, ours: Any, theirs: Any, device: str, bf16: bool) -> None:
        self.ours, self.theirs, self.device, self.bf16 = ours, theirs, device, bf16
        self.loss = NextTokenLoss()

    def freeze(self, stage: int) -> None:
        """Leaves on what a stage trains, on both sides alike."""
        for name, parameter in self.ours.named_parameters():
            parameter.requires_grad_(name.startswith("projector.") or (stage == 2 and name.startswith("language_base.")))
        for name, parameter in self.theirs.named_parameters():
            language = name.startswith(("model.language_model.", "lm_head."))
            parameter.requires_grad_(".multi_modal_projector." in name or (stage == 2 and language))

    def step(self, model: Any, loss: Callable[[], Tensor]) -> Callable[[], None]:
        """One step: loss, gradients, fused AdamW."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimiser = torch.optim.AdamW(trained, lr=1e-5, fused=True)

        def run() -> None:
            with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
                value = loss()
            value.backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

        return run

    def of_ours(self, batch: dict[str, Any]) -> Callable[[], None]:
        """Our step on a batch, with or without kept features."""
        return self.step(self.ours, lambda: self.loss(self.ours(batch), batch).value)

    def of_theirs(self, batch: dict[str, Tensor]) -> Callable[[], None]:
        """Transformers' step."""
        return self.step(self.theirs, lambda: self.theirs(**batch).loss)


def compare(steps: Steps, size: dict[str, Any], rounds: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """All questions of one run."""
    ours, tokens = steps.ours, size["batch"] * size["length"]
    made = examples(ours, [size["length"]] * size["batch"], size["text"][-1])
    batch = on(ours.collate()(made), steps.device)
    hf = to_hf(batch, ours, steps.theirs)
    with torch.no_grad():
        kept = {key: value for key, value in batch.items() if key != "image"} | {"image_features": ours.features(batch["image"])}
        mine, other = float(steps.loss(ours(batch), batch).value), float(steps.theirs(**hf).loss)
    assert abs(mine - other) < 1e-4 * max(1.0, abs(other)), (mine, other)
    rows = []
    for stage in (1, 2):
        steps.freeze(stage)
        ways = {
            "transformers": counted(steps.of_theirs(hf), tokens),
            "ours, features kept": counted(steps.of_ours(kept), tokens),
            "ours, features computed": counted(steps.of_ours(batch), tokens),
        }
        rates = interleaved(ways, rounds, clock)
        for name, most in (("ours, features kept", 0.75 if stage == 1 else 0.80), ("ours, features computed", None)):
            rows.append(row(f"stage {stage}: {name}, time by transformers' step", rates, name, "transformers", most))
    return rows + ragged(steps, size, rounds, clock) + composite(steps, batch, rounds, clock)


def ragged(steps: Steps, size: dict[str, Any], rounds: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """Conversations of unlike length: padded, of like length together, and packed."""
    ours, generator = steps.ours, torch.Generator().manual_seed(1)
    least, most = ours.layout.tokens_per_tile + 8, 3 * size["length"]
    many = 8 * size["batch"]
    # few long ones among many short ones, as in conversations: less than half of a padded batch is text
    lengths = (least + (most - least) * torch.rand(many, generator=generator) ** 4).long().tolist()
    made = examples(ours, lengths, size["text"][-1])
    steps.freeze(2)
    order = sorted(range(many), key=lambda number: lengths[number])

    def batches(numbers: list[int], pack: bool = False) -> list[dict[str, Any]]:
        parts = [[made[number] for number in numbers[start : start + size["batch"]]] for start in range(0, many, size["batch"])]
        return [on(kept_of(ours, part, pack), steps.device) for part in parts]

    ways = {}
    for name, found in (
        ("padded", batches(list(range(many)))),
        ("bucketed", batches(order)),
        ("packed", batches(list(range(many)), True)),
    ):
        runs = [steps.of_ours(batch) for batch in found]
        ways[name] = counted(lambda runs=runs: [run() for run in runs], sum(lengths))
    rates = interleaved(ways, max(3, rounds // 3), clock)
    whole = sum(batch["ids"].numel() for batch in batches(list(range(many))))
    title = f"ragged lengths ({sum(lengths) / many:.0f} on average, {max(lengths)} at most; padded {whole / sum(lengths):.2f}x)"
    return [row(f"{title}: {name}, time by padded", rates, name, "padded", 0.70) for name in ("bucketed", "packed")]


def kept_of(model: Any, made: list[dict[str, Any]], pack: bool) -> dict[str, Any]:
    """A batch with kept features."""
    if pack:
        batch, order = packed(made, int(model.language.tokenizer.pad_token_id))
        made = [made[number] for number in order]
        batch |= {**pictures_of(made), "keys": [example["key"] for example in made]}
        rows = {int(n): row for row, numbers in enumerate(batch["segments"]) for n in numbers.unique().tolist()}
        batch["image_rows"] = torch.tensor([rows[number] for number in order])
    else:
        batch = model.collate()(made)
    device = next(model.parameters()).device
    with torch.no_grad():
        batch["image_features"] = model.features(torch.cat([example["image"] for example in made]).to(device)).cpu()
    return {key: value for key, value in batch.items() if key != "image"}


def composite(steps: Steps, batch: dict[str, Any], rounds: int, clock: Callable[[], float]) -> list[dict[str, Any]]:
    """The whole step beside its parts run bare: encoder, projector, language model, head and loss."""
    ours = steps.ours
    steps.freeze(2)
    tokens = batch["ids"].numel()
    with torch.no_grad():
        features = ours.features(batch["image"])
        embeddings = ours.embed(batch)
        outputs = ours(batch)
    states, labels = outputs["token_states"].detach(), outputs["token_labels"]
    inputs = embeddings.detach().requires_grad_()
    hidden = states.clone().requires_grad_()

    def whole() -> None:
        steps.loss(ours(batch), batch).value.backward()
        ours.zero_grad(set_to_none=True)

    def parts() -> None:
        with torch.no_grad():
            ours.features(batch["image"])
        ours.projector(features).sum().backward()
        ours.language.states(inputs).sum().backward()
        linear_cross_entropy(hidden, ours.head()[0], labels).backward()
        ours.zero_grad(set_to_none=True)

    rates = interleaved({"whole": counted(whole, tokens), "parts": counted(parts, tokens)}, rounds, clock)
    return [row("the whole step, time by the sum of its bare parts", rates, "whole", "parts", 1.05)]


def row(question: str, rates: dict[str, list[float]], one: str, other: str, most: float | None) -> dict[str, Any]:
    """One line of the table: time is the inverse of the rate."""
    found = ratio(rates, other, one)
    return {
        "question": question,
        "ratio": round(found, 3),
        "wanted": "" if most is None else f"<= {most}",
        "tokens/s": round(median(rates[one])),
        "tokens/s of the other": round(median(rates[other])),
    }


def counted(run: Callable[[], Any], tokens: int) -> Callable[[], int]:
    """A way that says how many tokens it saw, when all of it is done."""

    def timed() -> int:
        run()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return tokens

    return timed


def on(batch: dict[str, Any], device: str) -> dict[str, Any]:
    """The batch on a device."""
    return {key: value.to(device) if isinstance(value, Tensor) else value for key, value in batch.items()}


_HEAD = """
import sys, torch
sys.path.insert(0, {here!r})
from modalign.zoo.losses.parts.linear_cross_entropy import linear_cross_entropy
from torch.nn.functional import cross_entropy
way, words, device = sys.argv[1], int(sys.argv[2]), sys.argv[3]
states = torch.randn(2048, 576, device=device, requires_grad=True)
weight = torch.randn(words, 576, device=device)
labels = torch.full((2048,), -100, device=device)
labels[::3] = 1
def peak():
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM:"))
before = peak()
if way == "whole":
    cross_entropy(states @ weight.T, labels).backward()
elif way == "ours":
    keep = labels != -100
    linear_cross_entropy(states[keep], weight, labels[keep]).backward()
print(peak() - before)
"""


def head_memory(device: str) -> list[dict[str, Any]]:
    """Memory of output layer and loss over 2,048 positions, a third of them learnt, each in a process of its own."""
    rows = []
    for words in (49_152, 128_256):
        found = {}
        for way in ("whole", "ours"):
            code = _HEAD.format(here=str(Path(__file__).parent))
            done = subprocess.run(
                [sys.executable, "-c", code, way, str(words), device], capture_output=True, text=True, check=True
            )
            found[way] = int(done.stdout) / 1e6
        rows.append(
            {
                "question": f"memory of head and loss, {words} words, 2048 positions: ours {found['ours']:.0f} MB, all logits "
                f"{found['whole']:.0f} MB",
                "ratio": round(found["ours"] / max(found["whole"], 1e-9), 3),
            }
        )
    return rows


def main() -> None:
    """Runs and writes benchmarks/results/llava_step[_cuda].json and .md."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--size", choices=SIZES, default=None)
    parser.add_argument("--rounds", type=int, default=9)
    asked = parser.parse_args()
    cuda = asked.device == "cuda"
    size = SIZES[asked.size or ("large" if cuda else "small")]
    from transformers import LlavaForConditionalGeneration

    with tempfile.TemporaryDirectory() as place:
        folder = folder_of(size, Path(place))
        ours = load_llava(f"{folder}").to(asked.device)
        theirs = LlavaForConditionalGeneration.from_pretrained(folder, dtype=torch.float32).to(asked.device)
    steps = Steps(ours, theirs, asked.device, bf16=cuda)
    ours.train()
    theirs.train()
    rows = compare(steps, size, asked.rounds, time.perf_counter if cuda else time.process_time) + head_memory(asked.device)
    facts = where(("torch", "transformers"))
    facts |= {"threads": torch.get_num_threads(), "precision": "bf16-mixed" if cuda else "float32", "rounds": asked.rounds}
    if cuda:
        facts["gpu"] = torch.cuda.get_device_name()
    name = "llava_step_cuda" if cuda else "llava_step"
    write(
        name,
        "A training step of a stack",
        "Ratios of time, measured in turns in one process: below 1 is faster than the other. Each step is loss, gradients and fused AdamW. "
        "A third of all positions is learnt.",
        f"python benchmarks/llava_step.py{' --device cuda' if cuda else ''}",
        rows,
        facts,
    )
    for one in rows:
        print(one)


if __name__ == "__main__":
    main()
