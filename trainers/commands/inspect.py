"""`modalign data inspect`: the batch that a training step sees, tensor by tensor and row by row."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from modalign.datasets.commands.sheet import contact_sheet, sheet_path
from modalign.datasets.decoding.sample import decode_sample
from modalign.datasets.loading.loader import Loader
from modalign.datasets.loading.plan import Draw
from modalign.datasets.shards import ShardSet
from modalign.zoo.errors import DataError, RecipeError, nearest

from ..console import console, print_table, quiet_libraries
from ..data_kind import DIALOGUE, SERIES
from ..kinds import kind_of

_STEP = re.compile(r"(.+):(\d+)")


@dataclass
class Row:
    """One row of a batch, as it is shown."""

    key: str
    shard: str
    language: str
    text: str
    picture: Any = None


def inspect_batch(
    batch: str,
    *,
    step: int = 0,
    rows: int = 8,
    stage: str = "",
    out: str = "",
    data: str = "",
    init_from: str = "",
    allow_remote: list[str] | None = None,
) -> None:
    """Prints the batch of a training step: names, shapes and types of its tensors, then key, shard, caption and tokens of its rows.

    The pixels, as they are after random views, go to a contact sheet. Nothing is trained, and nothing of the run folder is touched. A stage
    that caches features is shown with the pictures and texts they are made of. Given shards instead of a recipe, their first samples are
    shown as they are stored.

    Args:
        batch: A recipe (file or shipped name) or a run folder, also `RECIPE:STEP` and `RUN:STEP`; or shards.
        step: Which step of the stage, from 0, as in its samples.csv.
        rows: How many rows to show.
        stage: Which stage; default the first.
        out: The contact sheet, a PNG; default batch.png, or the next free of batch-2.png, batch-3.png ...
        data: Shards to use instead of the recipe's data.train.
        init_from: The model that a recipe without one of its own is to start from, as with `modalign train`.
        allow_remote: Schemes or origins that shards may be read from; default what recipe or environment say.

    Raises:
        RecipeError: If there is no such recipe, stage or step.
    """
    from ..recipe import load_recipe

    quiet_libraries()
    if rows < 1 or step < 0:
        raise RecipeError(f"rows is {rows} (1 or more) and step {step} (0 or more)")
    sheet = sheet_path(out, "batch.png")
    if _is_shards(batch):
        _show_shards(batch, rows, sheet, allow_remote)
        return
    if match := _STEP.fullmatch(batch):
        batch, step = match[1], int(match[2])
    if _is_run(batch):
        batch = str(Path(batch) / "recipe.yaml")
    recipe = load_recipe(batch, {key: value for key, value in {"data.train": data, "init_from": init_from}.items() if value})
    if allow_remote is not None:
        recipe.data = replace(recipe.data, allow_remote=allow_remote)
    name = stage or next(iter(recipe.stages))
    if name not in recipe.stages:
        raise RecipeError(f"there is no stage {name!r}{nearest(name, recipe.stages)}")
    _show_step(recipe, name, step, rows, sheet)


def _is_run(text: str) -> bool:
    return (Path(text) / "recipe.yaml").is_file()


def _is_shards(text: str) -> bool:
    return (Path(text).is_dir() and not _is_run(text)) or text.endswith(".tar") or text.startswith("asset:") or "://" in text


def _show_step(recipe: Any, name: str, step: int, rows: int, out: Path) -> None:
    model, loader = build(recipe, name)
    epoch, number = divmod(step, len(loader))
    total = recipe.stages[name].steps or round((recipe.stages[name].epochs or 0) * len(loader))
    if step >= max(1, total):
        raise RecipeError(f"stages.{name}: there is no step {step}; the stage has {total}, counted from 0")
    loader.seek(epoch, number)
    batch = next(iter(loader))
    console.print(
        f"stage {name}, step {step} of {total} (epoch {epoch}, batch {number} of {len(loader)}): {len(batch['keys'])} samples"
    )
    print_table("tensors", ("name", "shape", "type", "smallest", "mean", "largest"), tensor_table(batch))
    if kind_of(model).name == SERIES:
        _show_windows(model, batch, min(rows, len(batch["keys"])))
        return
    if kind_of(model).name == DIALOGUE:
        _show_conversations(model, batch, rows)
        return
    shown = [_row(loader, batch, epoch, number, row) for row in range(min(rows, len(batch["keys"])))]
    tokenizer = model.text.tokenizer() if "text_ids" in batch else None
    for position, row in enumerate(shown):
        print(f"\n{position}: {row.key}  ({row.shard})\n   [{row.language}] {row.text}")
        if tokenizer is not None:
            print(f"   tokens: {tokens_of(tokenizer, batch['text_ids'][position], batch['text_mask'][position])}")
        if row.picture is not None:
            pixels = np.asarray(row.picture)
            print(f"   pixels: {pixels.shape[1]}x{pixels.shape[0]}, {pixels.min()} to {pixels.max()}, mean {pixels.mean():.1f}")
    _sheet(shown, out, f"{name}, step {step}")


def _show_conversations(model: Any, batch: dict[str, Any], rows: int) -> None:
    """Tokens of the first rows, those to be learnt in colour; of packed rows each conversation by itself."""
    from ..dialogue.tokens import coloured

    for row, key in enumerate(batch["keys"][:rows]):
        mine = batch["segments"] == row if "segments" in batch else None
        ids, labels = (
            (batch[name][row][batch["mask"][row]] if mine is None else batch[name][mine]).tolist() for name in ("ids", "labels")
        )
        console.print(f"\n{row}: {key}  {len(ids)} tokens, {sum(label >= 0 for label in labels)} learnt")
        console.print(coloured(model.language.tokenizer, ids, labels))


def build(recipe: Any, name: str) -> tuple[Any, Any]:
    """The model of a stage (its weights do not matter here) and its loader without caches, workers and teachers."""
    from modalign import zoo

    from ..build import build_family
    from ..objective import Objective
    from ..recipe.settings import CacheConfig
    from ..stage import Place, _stage_seed
    from ..stage_data import build_loader, needs_of

    stage = recipe.stages[name]
    settings = stage.model or recipe.model
    model = build_family(settings, "model") if settings else zoo.load(recipe.init_from)
    objective = Objective(stage.losses, f"stages.{name}.losses")
    if (kind := kind_of(model)).name in (SERIES, DIALOGUE):
        kind.start(model, recipe, name)
        place: dict[str, Any] = {"where": f"stages.{name}", "seed": _stage_seed(recipe, name), "rank": 0, "world_size": 1}
        data = replace(recipe.stage_data(name), num_workers=0)
        plain = replace(stage, cache=CacheConfig())
        return model, kind.loader(model, [], plain, data, objective, folder=Path("."), **place)
    needs = replace(needs_of(objective.inputs()), teacher_text=())
    if stage.cache.image or stage.cache.text:
        console.print("the stage reads cached features; shown is what they are made of")
    loader = build_loader(
        model,
        [],
        replace(stage, cache=CacheConfig()),
        replace(recipe.stage_data(name), num_workers=0),
        needs,
        where=f"stages.{name}",
        seed=_stage_seed(recipe, name),
        rank=0,
        world_size=1,
        folder=Place(Path(str(recipe.run_dir)), name).folder,
    )
    loader.quarantine.path = None  # looking leaves no trace
    return model, loader


def _show_windows(model: Any, batch: dict[str, Any], rows: int) -> None:
    """First and last step of some windows, in the columns' own units."""
    known = model.config.series
    for row in range(rows):
        print(
            f"\n{row}: {batch['keys'][row]}" + (f"  class {known.labels[int(batch['label'][row])]}" if "label" in batch else "")
        )
        own = known.unscaled(batch["values"][row].double(), known.channels)
        shown = {"first row": own[0], "last row": own[-1]}
        if "target" in batch:
            shown["first to predict"] = known.unscaled(batch["target"][row, :1].double(), known.target)[0]
        for name, values in shown.items():
            print(f"   {name}: " + ", ".join(f"{c} {v:.4g}" for c, v in zip(known.channels, values.tolist(), strict=False)))
        if "observed" in batch:
            print(f"   missing or hidden: {int((~batch['observed'][row]).sum())} of {batch['observed'][row].numel()} values")


def _row(loader: Loader, batch: dict[str, Any], epoch: int, number: int, row: int) -> Row:
    """Makes a row's example once more, for its text; it comes from the same place of the plan, so it is the same."""
    source, sample = batch["sources"][row], batch["sample_numbers"][row]
    place = number * loader.plan.batch_size + row
    example, key = loader.reader.make(epoch, Draw(source, sample, place), place)
    shards = loader.sources[source]
    captions = decode_sample(shards.read(sample, [shards.caption_field])).captions
    language = next((lang for lang, texts in captions.items() if example["text"] in texts), "?")
    picture = _picture(batch["image"][row]) if "image" in batch else None
    return Row(key, shards.shard_label(shards.locate(sample)[0]), language, example["text"], picture)


def _picture(pixels: torch.Tensor) -> Any:
    from PIL import Image

    return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())


def tensor_table(batch: dict[str, Any]) -> list[tuple[str, ...]]:
    """(name, shape, type, smallest, mean, largest) of every entry of a batch."""
    table: list[tuple[str, ...]] = []
    for name, value in batch.items():
        if not isinstance(value, torch.Tensor):
            kind = type(value).__name__
            table.append((name, f"({len(value)},)" if isinstance(value, list) else "", kind, "", "", ""))
            continue
        numbers = value.double()
        stats = (f"{number:.4g}" for number in (numbers.min(), numbers.mean(), numbers.max())) if value.numel() else ("", "", "")
        table.append((name, str(tuple(value.shape)), str(value.dtype).removeprefix("torch."), *stats))
    return table


def tokens_of(tokenizer: Any, ids: torch.Tensor, mask: torch.Tensor) -> str:
    """The tokens that count, one by one, and how many do not."""
    kept = ids[mask.bool()].tolist()
    inner: Any = getattr(tokenizer, "tokenizer", None) or getattr(tokenizer, "inner", None)
    inner = getattr(inner, "tokenizer", inner)
    if hasattr(inner, "convert_ids_to_tokens"):
        words = [str(word) for word in inner.convert_ids_to_tokens(kept)]
    elif hasattr(inner, "decoder"):
        words = [str(inner.decoder.get(number, number)) for number in kept]
    else:
        words = [str(number) for number in kept]
    padding = int((~mask.bool()).sum())
    return " | ".join(words) + (f"  (+ {padding} masked)" if padding else "")


def _show_shards(text: str, rows: int, out: Path, allow_remote: list[str] | None) -> None:
    from modalign.datasets.remote.access import remote_of

    shards = ShardSet(text, remote=remote_of(allow_remote))
    shown = []
    for number in range(min(rows, len(shards))):
        raw = shards.read(number)
        sample = decode_sample(raw)
        members = ", ".join(f"{ext} {len(data)}" for ext, data in raw.members.items())
        language = next(iter(sample.captions), "?")
        print(f"\n{number}: {raw.key}  ({raw.shard})\n   members: {members} bytes")
        for lang, texts in sample.captions.items():
            print(f"   [{lang}] {' / '.join(texts)}")
        for name, value in sample.meta.items():
            print(f"   {name}: {str(value)[:100]}")
        for image in sample.images:
            print(f"   picture: {image.width}x{image.height}")
        shown.append(Row(raw.key, raw.shard, language, sample.primary_caption, sample.images[0] if sample.images else None))
    _sheet(shown, out, f"{shards.folder.name}, first {len(shown)}")


def _sheet(rows: list[Row], out: Path, title: str) -> None:
    pictures = [row for row in rows if row.picture is not None]
    if not pictures:
        return
    try:
        path = contact_sheet([row.picture for row in pictures], [f"[{row.language}] {row.text}" for row in pictures], out, title)
    except OSError as error:
        raise DataError(f"{out}: the contact sheet cannot be written ({error.strerror or error})") from error
    print(f"\nwritten: {path}")
