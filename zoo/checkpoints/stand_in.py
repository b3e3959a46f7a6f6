"""A release that only refers to a checkpoint of others, so that whatever takes a release takes the checkpoint too.

It is an adapter with nothing trained: settings, preprocessing, tokenizer, scale, and the hash of the weights it leaves where they are.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path
from typing import Any

_made: dict[str, Path] = {}


def stand_in(found: Any) -> Path:
    """The folder of such a release, made once per process and removed when it ends.

    Args:
        found: What `locate` found: a checkpoint of open_clip or LLaVA.

    Raises:
        ModalignError: If the checkpoint cannot be had or does not fit.
    """
    key = f"{found.open_clip or found.llava}\n{Path.cwd()}"  # a relative folder is another one after a change of directory
    if key not in _made:
        from .release import save_release

        parent = Path(tempfile.mkdtemp(prefix="modalign-"))
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
        _made[key] = save_release(load_other(found), parent / "release", kind="adapter", public=False)
    return _made[key]


def load_other(found: Any) -> Any:
    """The model of a checkpoint of others.

    Args:
        found: What `locate` found.

    Raises:
        ModalignError: If the checkpoint cannot be had or does not fit.
    """
    if found.llava is not None:
        from .llava.base import load_llava

        return load_llava(found.llava)
    from .open_clip_load import load_open_clip

    return load_open_clip(str(found.open_clip))
