"""Where a command computes: the fastest device there is, or the one that was asked for."""

from __future__ import annotations

from modalign.zoo.errors import RecipeError


def pick_device(name: str = "auto") -> str:
    """`auto` becomes cuda, mps or cpu, whichever this machine has first; anything else is checked and given back.

    Raises:
        RecipeError: If torch knows no such device, or this machine does not have it.
    """
    import torch

    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        torch.empty(0, device=torch.device(name))
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise RecipeError(f"--device {name}: {str(error).splitlines()[0]}; auto takes what this machine has") from None
    return name
