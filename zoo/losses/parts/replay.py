"""Running a part of a model a second time exactly as it ran the first time: same random draws, same autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves


class Circumstances:
    """What a forward pass depends on besides parameters and inputs: states of the random generators, and autocast.

    Remembers them as they are now, for the CPU and for the devices that the inputs are on. Generators of Python and NumPy are not
    among them; a model's randomness has to come from torch.

    Args:
        inputs: Any nesting of tensors and other values.
    """

    def __init__(self, inputs: Any) -> None:
        devices = {leaf.device for leaf in tree_leaves(inputs) if isinstance(leaf, Tensor)}
        self._devices = sorted((device for device in devices if device.type not in ("cpu", "meta")), key=str)
        self._cpu_state = torch.get_rng_state()
        self._states = [torch.get_device_module(device).get_rng_state(device) for device in self._devices]
        types = {"cpu", *(device.type for device in self._devices)}
        self._autocast = [(kind, torch.get_autocast_dtype(kind), torch.is_autocast_enabled(kind)) for kind in sorted(types)]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Puts everything back as it was; afterwards the generators go on where they were before."""
        with ExitStack() as stack:
            stack.enter_context(torch.random.fork_rng(devices=[]))
            for device, state in zip(self._devices, self._states, strict=True):
                module = torch.get_device_module(device)
                stack.callback(module.set_rng_state, module.get_rng_state(device), device)
                module.set_rng_state(state, device)
            torch.set_rng_state(self._cpu_state)
            for kind, dtype, enabled in self._autocast:
                stack.enter_context(torch.autocast(kind, dtype, enabled))
            yield
