"""Text embedders in the layout of sentence-transformers, built without that library."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ...errors import AssemblyError
from ..hf_loading import NO_LIMIT, load_body, longest_text
from ..sources import Source, refuse_remote_code
from .embedder import DEFAULT_LENGTH, WEIGHTS, TextEmbedder, TextEmbedderConfig
from .hf_tokenize import load_tokenizer
from .sentence_transformers import SentenceFolder, build_head, read_sentence_folder


class SentenceEmbedder(TextEmbedder):
    """A sentence-transformers folder: its transformer, pooling, dense layers and normalisation, read without that library."""

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """modules.json lists the parts."""
        return (folder / "modules.json").is_file()

    @classmethod
    def build(cls, config: TextEmbedderConfig, source: Source, *, load_weights: bool) -> SentenceEmbedder:
        """See `TextEncoder.build`.

        Raises:
            AssemblyError: If a setting contradicts the folder.
            ReleaseError: If a module cannot be expressed.
        """
        wanted = config.pretrained and load_weights
        patterns = tuple((*names, f"*/{names[0]}") for names in WEIGHTS)
        folder = (source.with_weights(patterns) if wanted else source).files()
        found = read_sentence_folder(folder, config.name)
        _check_against(config, found)
        refuse_remote_code(found.transformer)
        tokenizer = load_tokenizer(found.transformer, config.name)
        body = load_body(found.transformer, config.name, pretrained=wanted)
        prefix = config.prefix or found.prefix(config.prompt, config.name)
        length = config.max_length or found.max_length or _own_length(tokenizer, body)
        made = cls(config, body, tokenizer, pooling=found.pooling, prefix=prefix, max_length=length)
        made.head, width = build_head(found, config.name, load_weights=wanted)
        made._lower, made._files = found.lower, _descriptions(folder)
        made._place = found.transformer.resolve().relative_to(folder.resolve())
        made.width = width or made.width
        return made.eval()

    _files: Mapping[str, Any]
    _place: Path

    def save_processor(self, folder: Path) -> None:
        """Writes the folder's own descriptions again, and the tokenizer."""
        (folder / self._place).mkdir(parents=True, exist_ok=True)
        super().save_processor(folder / self._place)
        for name, values in self._files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(json.dumps(values, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _own_length(tokenizer: Any, body: Any) -> int:
    known = min(int(tokenizer.model_max_length), longest_text(body))
    return known if known < NO_LIMIT else DEFAULT_LENGTH


def _check_against(config: TextEmbedderConfig, found: SentenceFolder) -> None:
    if config.pooling is not None and config.pooling != found.pooling:
        raise AssemblyError(f"{config.name}: pooling: {config.pooling}, but its folder says {found.pooling}; leave it out")
    if config.prefix and config.prompt:
        raise AssemblyError(f"{config.name}: give prefix or prompt, not both")


def _descriptions(folder: Path) -> dict[str, Any]:
    """Every small JSON that says what the modules are, so that a release holds them too; tokenizer files are written anew."""
    names = ("modules.json", "config_sentence_transformers.json", "sentence_bert_config.json")
    found = {}
    for path in sorted([*folder.glob("*.json"), *folder.glob("*/*.json")]):
        relative = path.relative_to(folder)
        inner = len(relative.parts) == 2 and relative.name == "config.json" and not (path.parent / "tokenizer.json").exists()
        if relative.name in names or (inner and "_" in relative.parts[0]):
            found[str(relative)] = json.loads(path.read_text(encoding="utf-8"))
    return found
