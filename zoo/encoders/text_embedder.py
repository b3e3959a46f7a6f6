"""Text embedders from Hugging Face: sentence encoders with mean, last-token or CLS pooling and a text prefix."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor

from ..errors import NameGrammarError
from ..names import local_folder, parse_name
from .text import TextEncoder

Pooling = Literal["mean", "last", "cls"]


@dataclass
class TextEmbedderConfig:
    """Settings of a Hugging Face text embedder.

    Attributes:
        name: `asset:NAME`, `hf:ORG/NAME` or a local Hugging Face folder.
        pooling: `mean` over real tokens, `last` real token, or `cls`, the first token.
        prefix: Put before every text, for example "query: " with E5.
        max_length: Longer texts are cut, in tokens.
        pretrained: Load the weights; False starts from random ones.
    """

    name: str = "asset:multilingual-e5-small"
    pooling: Pooling = "mean"
    prefix: str = ""
    max_length: int = 128
    pretrained: bool = True


class HuggingFaceTokenize:
    """Picklable tokenisation for data workers.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prefix: Put before every text.
        max_length: Longer texts are cut.
    """

    def __init__(self, tokenizer: Any, prefix: str, max_length: int) -> None:
        self.tokenizer, self.prefix, self.max_length = tokenizer, prefix, max_length

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """N strings -> ids and mask (N, T), padded to the longest."""
        tokens = self.tokenizer(
            [self.prefix + text for text in texts], padding=True, truncation=True, max_length=self.max_length, return_tensors="pt"
        )
        return {"ids": tokens["input_ids"], "mask": tokens["attention_mask"]}


class TextEmbedder(TextEncoder):
    """A pretrained transformer whose token states are pooled to one vector."""

    Config = TextEmbedderConfig

    def __init__(self, config: TextEmbedderConfig, *, load_weights: bool = True, folder: Path | None = None) -> None:
        """Builds the embedder.

        Args:
            config: Its settings.
            load_weights: False builds the shape only.
            folder: A release's folder to take configuration and tokenizer from instead of the name.
        """
        super().__init__()
        from transformers import AutoConfig, AutoModel, AutoTokenizer

        self.config = config
        source = str(folder) if folder else _source(config.name)
        hf_config = AutoConfig.from_pretrained(source)
        if config.pretrained and load_weights:
            self.model = AutoModel.from_pretrained(source, dtype=torch.float32, **_without_pooler(hf_config))
        else:
            self.model = AutoModel.from_config(hf_config, dtype=torch.float32, **_without_pooler(hf_config))
        self._tokenizer = AutoTokenizer.from_pretrained(source)
        if self._tokenizer.pad_token_id is None:
            raise NameGrammarError(f"{config.name}: its tokenizer has no pad token; set one in the tokenizer files of the folder")
        self.model.eval()
        self.width = int(hf_config.hidden_size)

    def tokenizer(self) -> HuggingFaceTokenize:
        """See `TextEncoder.tokenizer`."""
        return HuggingFaceTokenize(self._tokenizer, self.config.prefix, self.config.max_length)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids and mask -> (N, D) pooled token states."""
        states = self.model(input_ids=ids, attention_mask=mask).last_hidden_state
        return pool(states, mask, self.config.pooling)

    def identity(self) -> dict[str, Any]:
        """Settings that change the vectors."""
        return {key: value for key, value in asdict(self.config).items() if key in ("pooling", "prefix", "max_length")}

    def save_processor(self, folder: Path) -> None:
        """Writes the transformer's configuration and tokenizer."""
        self.model.config.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Token states (N, T, D) and mask (N, T) -> (N, D).

    `last` takes the last real token whichever side is padded.
    """
    if pooling == "cls":
        return states[torch.arange(len(states), device=states.device), mask.argmax(1)]
    if pooling == "last":
        positions = torch.arange(mask.shape[1], device=mask.device)
        return states[torch.arange(len(states), device=states.device), (mask * positions).argmax(1)]
    weights = mask.unsqueeze(-1).to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1.0)


def _without_pooler(hf_config: Any) -> dict[str, bool]:
    """Leaves out BERT's pooling layer where there is one: it is not used, and a part not used would never get a gradient."""
    from transformers import MODEL_MAPPING

    model_class: Any = MODEL_MAPPING[type(hf_config)]
    arguments = inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in arguments else {}


def _source(text: str) -> str:
    name = parse_name(text)
    if name.scheme == "hf":
        return name.rest
    folder = local_folder(name)
    if folder is None:
        raise NameGrammarError(f"{text}: a text embedder is asset:NAME, hf:ORG/NAME or a Hugging Face folder")
    return str(folder)
