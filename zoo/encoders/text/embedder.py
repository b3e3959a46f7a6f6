"""Text embedders: any transformers model of text, causal or not, with mean, last-token, CLS or other pooling and a text prefix."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...errors import AssemblyError
from ...registry import ENCODERS
from ..hf_loading import checkpoint_body, load_body, longest_text, takes_text
from ..image.build import kind_of
from ..layers import Depths
from ..sources import Source, trusted_source
from .attention import set_attention
from .base import TextEncoder
from .hf_tokenize import HuggingFaceTokenize, load_tokenizer
from .pooling import POOLINGS, Pooling, pool

__all__ = ["HuggingFaceTokenize", "Pooling", "TextEmbedder", "TextEmbedderConfig", "build_text_encoder", "pool"]
DEFAULT_LENGTH = 128
WEIGHTS = (("model*.safetensors",), ("pytorch_model*.bin",))


@dataclass
class TextEmbedderConfig:
    """Settings of a pretrained text encoder.

    Attributes:
        name: `asset:NAME`, `hf:ORG/NAME`, `open_clip:MODEL/TAG`, or a folder of transformers, sentence-transformers or open_clip.
        pooling: `mean` over real tokens, `last` real token, `cls`, the first token, `weighted_mean` (by position), `max` or `mean_sqrt`;
            default what a sentence-transformers folder says, else `mean`.
        prefix: Put before every text, for example "query: " with E5.
        max_length: Longer texts are cut, in tokens; default what a sentence-transformers folder says, else 128.
        bidirectional: Let the tokens of a causal language model look both ways; default as its configuration says.
        prompt: A prompt of a sentence-transformers folder, by name, as the prefix.
        pretrained: Load the weights; False starts from random ones.
        kind: `transformers`, `sentence_transformers`, `open_clip` or a registered kind, where a folder holds several.
        options: Settings of a registered kind of one's own.
    """

    name: str = "asset:multilingual-e5-small"
    pooling: Pooling | None = None
    prefix: str = ""
    max_length: int | None = None
    bidirectional: bool | None = None
    prompt: str | None = None
    pretrained: bool = True
    kind: str | None = None
    options: dict[str, Any] = field(default_factory=dict)


def build_text_encoder(config: TextEmbedderConfig, *, load_weights: bool = True, folder: Path | None = None) -> TextEncoder:
    """Builds a text encoder.

    Args:
        config: Its settings.
        load_weights: False builds the shape only, for weights that come from a release.
        folder: A release's folder to take configuration and tokenizer from instead of the name.

    Raises:
        NameGrammarError: If the name is wrong, or the folder holds no text encoder that is known, or several.
        AssemblyError: If a setting does not go with the encoder.
        ReleaseError: If a file is missing or damaged.
    """
    source = trusted_source(config.name, folder)
    cls: type[TextEncoder] = ENCODERS.get(f"text.{kind_of(source, config.kind, 'text', config.name)}")
    return cls.build(config, source, load_weights=load_weights)


class TextEmbedder(TextEncoder):
    """A transformer whose token states are pooled to one vector.

    Attributes:
        pooling: How.
        prefix: What is put before every text.
        max_length: Where texts are cut.
    """

    Config = TextEmbedderConfig

    def __init__(
        self, config: TextEmbedderConfig, model: Any, tokenizer: Any, *, pooling: Pooling, prefix: str, max_length: int
    ) -> None:
        """Wraps a model; `build` makes one from a name.

        Args:
            config: Its settings.
            model: A transformers model of token states.
            tokenizer: Its tokenizer.
            pooling: Resolved from settings and folder.
            prefix: Resolved from settings and folder.
            max_length: Resolved from settings and folder.

        Raises:
            AssemblyError: If a setting does not go with the model.
        """
        super().__init__()
        self.config = config
        self.model = model
        self.head = nn.Sequential()
        self._tokenizer = tokenizer
        self._lower = False
        self.pooling, self.prefix, self.max_length = pooling, prefix, max_length
        if pooling not in POOLINGS:
            raise AssemblyError(f"{config.name}: pooling: {pooling!r} is none of {', '.join(POOLINGS)}")
        if (longest := longest_text(model)) < max_length:
            raise AssemblyError(f"{config.name}: max_length: {max_length}, but the model takes at most {longest} tokens")
        self._positions = _takes_positions(self.model)
        set_attention(self.model, config.bidirectional, config.name)
        self.width = int(self.model.config.hidden_size)

    @classmethod
    def recognises(cls, folder: Path) -> bool:
        """Transformers' config.json with a model type that takes token ids."""
        if not (folder / "config.json").is_file() or (folder / "modules.json").is_file():
            return False
        return not (folder / "open_clip_config.json").is_file() and takes_text(folder)

    @classmethod
    def build(cls, config: TextEmbedderConfig, source: Source, *, load_weights: bool) -> TextEmbedder:
        """See `TextEncoder.build`.

        Raises:
            AssemblyError: If `prompt` is asked of a folder without prompts.
        """
        if config.prompt is not None:
            raise AssemblyError(f"{config.name}: prompt: only sentence-transformers folders have prompts; write prefix: instead")
        wanted = config.pretrained and load_weights
        folder = (source.with_weights(WEIGHTS) if wanted else source).files()
        body = load_body(folder, config.name, pretrained=wanted)
        return cls(
            config,
            body,
            load_tokenizer(folder, config.name),
            pooling=config.pooling or "mean",
            prefix=config.prefix,
            max_length=config.max_length or min(DEFAULT_LENGTH, longest_text(body)),
        ).eval()

    def tokenizer(self) -> HuggingFaceTokenize:
        """See `TextEncoder.tokenizer`."""
        return HuggingFaceTokenize(self._tokenizer, self.prefix, self.max_length, self._lower)

    def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(N, T) ids and mask -> (N, D) pooled token states; padding on either side changes nothing."""
        places = {"position_ids": (mask.cumsum(1) - 1).clamp(min=0)} if self._positions else {}
        states = self.model(input_ids=ids, attention_mask=mask, **places).last_hidden_state
        return self.head(pool(states, mask, self.pooling))

    def identity(self) -> dict[str, Any]:
        """Settings that change the vectors."""
        found: dict[str, Any] = {"pooling": self.pooling, "prefix": self.prefix, "max_length": self.max_length}
        if self.config.bidirectional is not None:
            found["bidirectional"] = self.config.bidirectional
        return found | ({"lower": True} if self._lower else {}) | ({"head": str(self.head)} if len(self.head) else {})

    @cached_property
    def _depths(self) -> Depths:
        return Depths(self.model)

    @property
    def num_layers(self) -> int:
        """See `TextEncoder.num_layers`."""
        return self._depths.count

    def layer_of(self, parameter: str) -> int:
        """See `TextEncoder.layer_of`."""
        if parameter.startswith("head."):
            return self._depths.count - 1
        return self._depths[parameter.removeprefix("model.")]

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """See `TextEncoder.set_grad_checkpointing`."""
        checkpoint_body(self.model, f"text encoder {self.config.name}", enable)

    def save_processor(self, folder: Path) -> None:
        """Writes the transformer's configuration and tokenizer."""
        self.model.config.save_pretrained(folder)
        self._tokenizer.save_pretrained(folder)


def _takes_positions(model: Any) -> bool:
    """Whether a model with causal layers can be told where each token stands, so that padding on the left shifts nothing."""
    causal = any(getattr(part, "is_causal", None) is True for part in model.modules())
    return causal and "position_ids" in inspect.signature(model.forward).parameters
