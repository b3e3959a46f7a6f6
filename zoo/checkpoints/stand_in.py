"""A release that only refers to an open_clip checkpoint, so that whatever takes a release takes the checkpoint too.

It is an adapter with nothing trained: settings, preprocessing, tokenizer, scale, and the hash of the weights it leaves where they are.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from pathlib import Path

_made: dict[str, Path] = {}


def stand_in(name: str) -> Path:
    """The folder of such a release, made once per process and removed when it ends.

    Args:
        name: `open_clip:MODEL/TAG`, `local-dir:FOLDER` or `hf:ORG/NAME`.

    Raises:
        ModalignError: If the checkpoint cannot be had or does not fit; see `load_open_clip`.
    """
    key = f"{name}\n{Path.cwd()}"  # a relative folder is another one after a change of directory
    if key not in _made:
        from .open_clip_load import load_open_clip
        from .release import save_release

        parent = Path(tempfile.mkdtemp(prefix="modalign-"))
        atexit.register(shutil.rmtree, parent, ignore_errors=True)
        _made[key] = save_release(load_open_clip(name), parent / "release", kind="adapter", public=False)
    return _made[key]
