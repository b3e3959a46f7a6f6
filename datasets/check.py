"""`modalign data check`: everything that can be found out about a folder of shards without training on it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from modalign.zoo.errors import DataError

from .home import local_path
from .index import build_index, read_index
from .manifest import FILE_NAME, Manifest, ShardInfo, read_manifest
from .pack import describe
from .sample import decode_sample
from .shards import ShardSet
from .verify import verify_shard

_SHOWN = 20


def check(shards: str, *, decode: bool = True) -> None:
    """Checks a folder of shards: sizes, hashes, structure, indexes, counts, schema, and that every sample can be decoded.

    Args:
        shards: The folder.
        decode: Decode every member too (the slow part).

    Raises:
        DataError: With the list of findings, each naming shard, sample and field.
    """
    folder = local_path(shards)
    manifest = read_manifest(folder)
    findings = [text for info in manifest.shards for text in _shard_findings(folder / info.name, info, manifest.task)]
    listed = {info.name for info in manifest.shards}
    findings += [f"{path}: not listed in {FILE_NAME}" for path in sorted(folder.glob("*.tar")) if path.name not in listed]
    if not findings:
        findings = _content_findings(folder, manifest, decode)
    if findings:
        more = [f"... and {len(findings) - _SHOWN} more"] if len(findings) > _SHOWN else []
        raise DataError("\n  ".join([f"{folder}: {len(findings)} finding(s):", *findings[:_SHOWN], *more]))
    print(describe(manifest, folder))
    what = "hashes, structure, counts, schema" + (" and every sample" if decode else "; samples were not decoded")
    print(f"checked: {what}. Any number of workers works; the number of ranks must divide batch_size.")


def _shard_findings(tar: Path, info: ShardInfo, task: str) -> list[str]:
    """Hash, walk and index of one shard; the hash is computed anew, whatever is remembered."""
    try:
        verify_shard(tar, info, remembered=False)
        walked, stored = build_index(tar, task), read_index(tar, info)
    except DataError as error:
        return [str(error)]
    findings = []
    if len(walked.keys) != info.samples:
        findings.append(f"{tar}: {FILE_NAME} says {info.samples} samples, the shard has {len(walked.keys)}")
    same = walked.keys == stored.keys and walked.exts == stored.exts
    if not (same and (walked.offsets == stored.offsets).all() and (walked.sizes == stored.sizes).all()):
        findings.append(f"{tar}: the index beside it does not describe it; delete the index or pack again")
    return findings


def _content_findings(folder: Path, manifest: Manifest, decode: bool) -> list[str]:
    try:
        shards = ShardSet(folder)
    except DataError as error:
        return [str(error)]
    findings, fields, languages = [], Counter[str](), Counter[str]()
    for number in range(len(shards)):
        try:
            raw = shards.read(number)
            sample = decode_sample(raw, None if decode else ["json"] if "json" in raw.members else [])
        except DataError as error:
            findings.append(str(error))
            continue
        fields.update(list(raw.members))
        languages.update({name: len(texts) for name, texts in sample.captions.items()})
        if decode and "txt" in raw.members and raw.members["txt"].decode() != sample.primary_caption:
            findings.append(f"{raw.shard}: sample {raw.key!r}, field 'txt': not the primary caption of its json")
    if not findings:
        for name, found in (("fields", fields), ("languages", languages)):
            if dict(found) != manifest.schema.get(name):
                findings.append(f"{folder / FILE_NAME}: schema.{name} says {manifest.schema.get(name)}, found {dict(found)}")
    return findings
