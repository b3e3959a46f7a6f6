"""Answers: batched generation with a key-value cache, by transformers, from the spliced embeddings of a stack."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from ..errors import AssemblyError, RecipeError
from ..language.turns import Dialogue


@dataclass
class Decoding:
    """How tokens are chosen.

    Attributes:
        max_new_tokens: Most tokens of an answer.
        temperature: 0 takes the likeliest token each time; above 0 tokens are drawn.
        top_p: With a temperature, draw among the likeliest tokens with this share of the probability.
        beams: Beams of a beam search; 1 has none.
        repetition_penalty: Above 1 makes tokens that were written less likely.
    """

    max_new_tokens: int = 128
    temperature: float = 0.0
    top_p: float = 1.0
    beams: int = 1
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        """Checks what types cannot say.

        Raises:
            RecipeError: If a number is out of range.
        """
        if self.max_new_tokens < 1 or self.beams < 1 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise RecipeError(
                f"decoding: max_new_tokens {self.max_new_tokens} and beams {self.beams} must be 1 or more, temperature "
                f"{self.temperature:g} 0 or more, top_p {self.top_p:g} above 0 and at most 1"
            )


@dataclass
class Prompt:
    """A conversation that waits for its answer.

    Attributes:
        dialogue: Ends with the user's turn.
        images: The pictures it shows.
        key: What messages call it.
    """

    dialogue: Dialogue
    images: Sequence[Image.Image] = ()
    key: str = "prompt"


@torch.inference_mode()
def answers(model: Any, prompts: Sequence[Prompt], decoding: Decoding | None = None, batch_size: int = 8) -> list[str]:
    """Answers conversations.

    Prompts of like length share a batch, so that little is padded; the answers do not depend on that.

    Args:
        model: A stack, in eval mode.
        prompts: The conversations.
        decoding: How tokens are chosen; default the likeliest, 128 at most.
        batch_size: Conversations at a time.

    Returns:
        The answers, in order.

    Raises:
        DataError: If a conversation does not fit the model.
    """
    prepare, collate = model.prepare(), model.collate("left")
    examples = [prepare(prompt.key, prompt.dialogue, prompt.images, prompt=True) for prompt in prompts]
    order = sorted(range(len(examples)), key=lambda number: len(examples[number]["ids"]))
    found = [""] * len(examples)
    for start in range(0, len(order), batch_size):
        numbers = order[start : start + batch_size]
        batch = to_device(collate([examples[number] for number in numbers]), model.device)
        for number, ids in zip(numbers, generate(model, batch, decoding), strict=True):
            found[number] = model.language.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return found


def generate(model: Any, batch: Mapping[str, Any], decoding: Decoding | None = None, streamer: Any = None) -> list[list[int]]:
    """Token ids of the answers to a batch of prompts.

    Args:
        model: A stack.
        batch: Of `StackCollate` with padding on the left, without `labels`.
        decoding: How tokens are chosen.
        streamer: A streamer of transformers, for one conversation.

    Returns:
        For each row the ids up to its end token, without it.

    Raises:
        AssemblyError: If padding stands on the right.
    """
    from transformers import GenerationConfig

    mask = batch["mask"]
    if not bool(mask[:, -1].all()):
        raise AssemblyError("generation goes on from the last place of a row, so padding must stand on the left: collate('left')")
    decoding, stops = decoding or Decoding(), model.template().stops()
    room = max(1, model.language.max_positions - mask.shape[1])
    drawn = {"do_sample": True, "temperature": decoding.temperature, "top_p": decoding.top_p} if decoding.temperature else {}
    settings = GenerationConfig(
        max_new_tokens=min(decoding.max_new_tokens, room),
        num_beams=decoding.beams,
        repetition_penalty=decoding.repetition_penalty,
        eos_token_id=stops,
        pad_token_id=model.language.tokenizer.pad_token_id,
        use_cache=True,
        **(drawn or {"do_sample": False}),
    )
    with _whole_vocabulary(model) as language, torch.inference_mode():
        embeddings = model.embed(batch)
        ids = language.generate(
            inputs_embeds=embeddings, attention_mask=mask.long(), generation_config=settings, streamer=streamer
        )
    return [_until(row, stops) for row in ids.tolist()]


def _until(ids: list[int], stops: Sequence[int]) -> list[int]:
    return ids[: next((place for place, id_ in enumerate(ids) if id_ in stops), len(ids))]


@contextmanager
def _whole_vocabulary(model: Any) -> Iterator[Any]:
    """The language model with the hooks' tokens in its tables, while it generates."""
    language, beyond = model.language.model, model.extra_vocabulary()
    if beyond is None:
        yield language
        return
    table, head = language.get_input_embeddings(), language.get_output_embeddings()
    weight, bias = model.head()
    grown = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    grown.weight = nn.Parameter(weight, requires_grad=False)
    if bias is not None:
        grown.bias = nn.Parameter(bias, requires_grad=False)
    try:
        language.set_input_embeddings(_Embedding(model))
        language.set_output_embeddings(grown)
        yield language
    finally:
        language.set_input_embeddings(table)
        language.set_output_embeddings(head)


class _Embedding(nn.Module):
    """Embeds ids of the extra vocabulary too."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self._models = [model]  # in a list: the model is not a part of this module
        self._table = model.language.model.get_input_embeddings()

    @property
    def weight(self) -> Tensor:
        """The plain table; transformers asks for its type."""
        return self._table.weight

    def forward(self, ids: Tensor) -> Tensor:
        """(B, T) -> (B, T, D)."""
        return self._models[0].embed_ids(ids, self._table)


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """A batch with its tensors on a device."""
    return {name: value.to(device) if isinstance(value, Tensor) else value for name, value in batch.items()}
