"""Conversations, regions, document fields and spans: from a sample's JSON to checked, typed objects (docs/conversations.md)."""

from modalign.zoo.language.turns import (
    AudioPart,
    BoxPart,
    Dialogue,
    ImagePart,
    Part,
    SpanPart,
    TextPart,
    Turn,
    VideoPart,
)

from .annotations import check_annotations
from .boxes import Box
from .conversation import dialogue_of
from .document import DocumentFields, Line, fields_of
from .media import Media, media_of
from .place import SchemaError
from .regions import Region, regions_of
from .spans import Span, spans_of

__all__ = [
    "AudioPart",
    "Box",
    "BoxPart",
    "Dialogue",
    "DocumentFields",
    "ImagePart",
    "Line",
    "Media",
    "Part",
    "Region",
    "SchemaError",
    "Span",
    "SpanPart",
    "TextPart",
    "Turn",
    "VideoPart",
    "check_annotations",
    "dialogue_of",
    "fields_of",
    "media_of",
    "regions_of",
    "spans_of",
]
