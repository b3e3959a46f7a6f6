"""Where in a sample's JSON something stands, and the error that says so."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from modalign.zoo.errors import DataError


class SchemaError(DataError):
    """A sample's conversation, regions, fields or spans are not as docs/conversations.md says.

    Attributes:
        place: Where it stands.
        reason: What is wrong and what is wanted, without the place.
    """

    def __init__(self, place: Place, reason: str) -> None:
        super().__init__(f"{place}: {reason}")
        self.place, self.reason = place, reason

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.place, self.reason)


@dataclass(frozen=True)
class Place:
    """A place in the JSON of one sample.

    Attributes:
        key: The sample's key.
        field: The field of its JSON.
        steps: The way from there, as messages write it: "turn 2", "part 1"; counted from 1.
    """

    key: str
    field: str
    steps: tuple[str, ...] = ()

    def __str__(self) -> str:
        return ", ".join((f"sample {self.key!r}", f"field {self.field!r}", *self.steps))

    def inside(self, *steps: str) -> Place:
        """Returns the place some steps further in."""
        return replace(self, steps=(*self.steps, *steps))

    def error(self, reason: str) -> SchemaError:
        """Returns the error to raise here."""
        return SchemaError(self, reason)
