"""Reading weights that somebody else wrote: tensors and nothing else.

Safetensors files are checked before they are read; pickled files (`.bin`, `.pt`, `.pth`) are read with torch's `weights_only`, which
refuses everything that is not a tensor or a plain container.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import ReleaseError

MAX_HEADER = 32 * 2**20  # bytes; the header of a model with 10,000 tensors takes about one megabyte


def check_safetensors(path: Path) -> None:
    """Refuses a safetensors file whose header claims more than the file holds, or more than any model needs.

    Raises:
        ReleaseError: Naming both lengths.
    """
    size = path.stat().st_size
    with path.open("rb") as stream:
        header = int.from_bytes(stream.read(8), "little")
    if size < 8 or header > min(size - 8, MAX_HEADER):
        raise ReleaseError(
            f"{path}: cannot be read (its header claims {header} bytes, the file has {size}, the limit is {MAX_HEADER}); "
            "the file is damaged, get it again"
        )


def safetensors_metadata(path: Path) -> dict[str, str]:
    """The free-form entries of a safetensors header."""
    from safetensors import safe_open

    check_safetensors(path)
    with safe_open(path, framework="pt") as stream:
        return dict(stream.metadata() or {})


def read_weights(path: Path, wanted: Callable[[str], bool] | None = None) -> dict[str, Tensor]:
    """The tensors of a file by name, on the CPU; a training checkpoint's `state_dict`, and names without `module.`.

    Args:
        path: A `.safetensors` file, or a pickled one.
        wanted: Which names to read of a safetensors file; of others everything is read. None reads all.

    Raises:
        ReleaseError: If the file is damaged, or holds anything besides tensors.
    """
    state = _safetensors(path, wanted) if path.suffix == ".safetensors" else _pickled(path)
    if "state_dict" in state and isinstance(state["state_dict"], Mapping):
        state = dict(state["state_dict"])
    odd = [name for name, value in state.items() if not isinstance(value, Tensor)]
    if odd:
        raise ReleaseError(f"{path}: {odd[0]!r} is no tensor; a file of weights holds tensors by name")
    if state and all(name.startswith("module.") for name in state):
        state = {name.removeprefix("module."): value for name, value in state.items()}
    return state


def weight_names(path: Path) -> list[str]:
    """Names of the tensors of a file, read from the header where it has one.

    Raises:
        ReleaseError: If the file is damaged.
    """
    if path.suffix != ".safetensors":
        return list(read_weights(path))
    from safetensors import SafetensorError, safe_open

    try:
        check_safetensors(path)
        with safe_open(path, framework="pt") as stream:
            return list(stream.keys())
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{path}: cannot be read ({error}); the file is damaged, get it again") from None


def _safetensors(path: Path, wanted: Callable[[str], bool] | None) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        check_safetensors(path)
        with safe_open(path, framework="pt") as stream:
            return {name: stream.get_tensor(name) for name in stream.keys() if wanted is None or wanted(name)}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise ReleaseError(f"{path}: cannot be read ({error}); the file is damaged, get it again") from None


def _pickled(path: Path) -> dict[str, Any]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ReleaseError(
            f"{path}: cannot be read as tensors alone ({reason}); it is damaged, or holds code, which is never run; "
            "ask for a safetensors file"
        ) from None
    if not isinstance(state, Mapping):
        raise ReleaseError(f"{path}: holds a {type(state).__name__}, not tensors by name")
    return dict(state)


def load_strictly(model: nn.Module, state: Mapping[str, Tensor], shown: str) -> None:
    """Fills a module with every tensor of a state, or with none.

    Args:
        model: The module; it is float32 afterwards.
        state: Tensors by name.
        shown: What messages call it.

    Raises:
        ReleaseError: Naming what is missing, unexpected or of another shape.
    """
    own = model.state_dict()
    missing, unexpected = sorted(set(own) - set(state)), sorted(set(state) - set(own))
    wrong = [name for name in own if name in state and own[name].shape != state[name].shape]
    if missing or unexpected or wrong:
        parts = (("missing", missing), ("unexpected", unexpected), ("of another shape", wrong))
        said = "; ".join(f"{what}: {', '.join(names[:3])}" for what, names in parts if names)
        raise ReleaseError(f"{shown}: the weights are not those of the description ({said})")
    model.float().load_state_dict(dict(state))


def unshared(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies on the CPU, each with memory of its own, as a safetensors file wants them."""
    seen: set[int] = set()
    out = {}
    for name, tensor in state.items():
        plain = tensor.detach().cpu().contiguous()
        if plain.numel() and plain.untyped_storage().data_ptr() in seen:
            plain = plain.clone()
        if plain.numel():
            seen.add(plain.untyped_storage().data_ptr())
        out[name] = plain
    return out
