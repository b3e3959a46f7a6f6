"""`modalign data check`: everything that can be found out about shards without training on them."""

from __future__ import annotations

import json as jsonlib
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from modalign.zoo.errors import DataError

from ..decoding.sample import decode_sample
from ..packing.pack import describe
from ..remote.access import Remote, remote_of
from ..series.stored import TASK as SERIES
from ..series.stored import checked_series
from ..shards.foreign import unknown_tars
from ..shards.index import build_index, read_index
from ..shards.manifest import FILE_NAME, write_atomic
from ..shards.shard_set import ShardSet
from ..shards.stores import LocalStore, Store, open_store
from ..shards.verify import verify_shard

_SHOWN = 20


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong: the shard it is in, sample and field where it is one sample's, and a sentence."""

    shard: str
    reason: str
    key: str = ""
    field: str = ""
    sample: int = -1


def check(shards: str, *, decode: bool = True, json: str = "", allow_remote: list[str] | None = None) -> None:
    """Checks shards: sizes, hashes, structure, indexes, counts, schema, and that every sample can be decoded.

    Args:
        shards: A folder, tars, or an address.
        decode: Decode every member too (the slow part).
        json: Also write what was found to this file, or to the standard output for "-".
        allow_remote: Schemes or origins that shards may be read from, such as `[https]`; default what `MODALIGN_ALLOW_REMOTE` says.

    Raises:
        DataError: With the list of findings, each naming shard, sample and field.
    """
    remote = remote_of(allow_remote)
    store = open_store(shards, remote)
    findings = [one for shard in range(len(store.manifest.shards)) for one in _shard_findings(store, shard)]
    if isinstance(store, LocalStore):
        extra = unknown_tars(store.folder, store.manifest) if Path(shards).is_dir() else []
        findings += [Finding(str(store.folder / name), f"{store.folder / name}: not listed in {FILE_NAME}") for name in extra]
    samples: dict[str, Any] = {"checked": 0}
    if not findings:
        findings, samples = _content_findings(shards, store, decode, remote)
    if json:
        _write_json(json, store, findings, samples)
    if findings:
        more = [f"... and {len(findings) - _SHOWN} more"] if len(findings) > _SHOWN else []
        shown = [one.reason for one in findings[:_SHOWN]]
        raise DataError("\n  ".join([f"{store.name}: {len(findings)} finding(s):", *shown, *more]))
    if json == "-":
        return
    print(describe(store.manifest, store.name))
    what = "hashes, structure, counts, schema" + (" and every sample" if decode else "; samples were not decoded")
    print(f"checked: {what}. Any number of workers works; the number of ranks must divide batch_size.")


def _write_json(path: str, store: Store, findings: list[Finding], samples: dict[str, Any]) -> None:
    by_shard = Counter(one.shard for one in findings)
    content = {
        "data": store.name,
        "ok": not findings,
        "samples": store.manifest.samples,
        "shards": [
            {**asdict(info), "findings": by_shard.get(store.label(shard), 0)} for shard, info in enumerate(store.manifest.shards)
        ],
        "content": samples,
        "findings": [asdict(one) for one in findings],
    }
    text = jsonlib.dumps(content, ensure_ascii=False, indent=1)
    if path == "-":
        print(text)
    else:
        write_atomic(Path(path), f"{text}\n".encode())


def _shard_findings(store: Store, shard: int) -> list[Finding]:
    """Hash, walk and index of one shard; the hash is computed anew, whatever is remembered."""
    info, label = store.manifest.shards[shard], store.label(shard)
    try:
        tar = store.local(shard)
        verify_shard(tar, info, remembered=False)
        walked = build_index(tar, store.manifest.task)
        stored = read_index(tar, info, store.index_file(shard))
    except DataError as error:
        return [Finding(label, str(error))]
    findings = []
    if len(walked.keys) != info.samples:
        findings.append(Finding(label, f"{label}: {FILE_NAME} says {info.samples} samples, the shard has {len(walked.keys)}"))
    same = walked.keys == stored.keys and walked.exts == stored.exts
    if not (same and (walked.offsets == stored.offsets).all() and (walked.sizes == stored.sizes).all()):
        findings.append(Finding(label, f"{label}: the index beside it does not describe it; delete the index or pack again"))
    return findings


def _content_findings(name: str, store: Store, decode: bool, remote: Remote) -> tuple[list[Finding], dict[str, Any]]:
    try:
        shards = ShardSet(name, remote=remote)
    except DataError as error:
        return [Finding(getattr(error, "shard", store.name), str(error))], {"checked": 0}
    findings, fields, languages = [], Counter[str](), Counter[str]()
    ours = store.manifest.layout == "modalign"
    for number in range(len(shards)):
        label = shards.shard_label(shards.locate(number)[0])
        try:
            raw = shards.read(number)
            sample = decode_sample(raw, None if decode else ["caption"])
            if decode and store.manifest.task == SERIES:
                checked_series(raw, sample)
        except DataError as error:
            findings.append(Finding(label, str(error), shards.key(number), getattr(error, "field", ""), number))
            continue
        fields.update(list(raw.members))
        languages.update({name: len(texts) for name, texts in sample.captions.items()})
        if ours and decode and "txt" in raw.members and raw.members["txt"].decode() != sample.primary_caption:
            reason = f"{raw.shard}: sample {raw.key!r}, field 'txt': not the primary caption of its json"
            findings.append(Finding(label, reason, raw.key, "txt", number))
        if not ours and not sample.captions:
            reason = f"{raw.shard}: sample {raw.key!r}: it has no caption (captions in json, txt, or caption in json)"
            findings.append(Finding(label, reason, raw.key, "", number))
    if not findings:
        findings = _schema_findings(store, {"fields": fields, "languages": languages})
    return findings, {"checked": len(shards), "fields": dict(fields), "languages": dict(languages)}


def _schema_findings(store: Store, found: dict[str, Counter[str]]) -> list[Finding]:
    if isinstance(store, LocalStore) and not store.whole:
        return []  # the schema counts all shards of the folder, not those that were named
    return [
        Finding(
            store.name,
            f"{Path(store.name) / FILE_NAME}: schema.{name} says {store.manifest.schema.get(name)}, found {dict(counts)}",
        )
        for name, counts in found.items()
        if dict(counts) != store.manifest.schema.get(name)
    ]
