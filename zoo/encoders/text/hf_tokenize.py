"""transformers tokenizers as picklable callables for data workers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from ...errors import NameGrammarError, ReleaseError


class HuggingFaceTokenize:
    """Picklable tokenisation for data workers.

    Args:
        tokenizer: A Hugging Face tokenizer.
        prefix: Put before every text.
        max_length: Longer texts are cut.
        lower: Put texts in lower case first.
    """

    def __init__(self, tokenizer: Any, prefix: str, max_length: int, lower: bool = False) -> None:
        self.tokenizer, self.prefix, self.max_length, self.lower = tokenizer, prefix, max_length, lower

    def __call__(self, texts: Sequence[str]) -> dict[str, Tensor]:
        """N strings -> ids and mask (N, T), padded to the longest.

        A text without any token (an empty one, where the tokenizer adds none) is stood for by one padding token that counts.
        """
        whole = [self.prefix + text for text in texts]
        tokens = self.tokenizer(
            [text.lower() for text in whole] if self.lower else whole,
            padding=True,
            truncation=True,
            max_length=self.max_length,
            return_tensors="pt",
        )
        ids, mask = tokens["input_ids"], tokens["attention_mask"]
        if ids.shape[1] == 0:
            ids = ids.new_full((len(whole), 1), self.tokenizer.pad_token_id, dtype=int)
            mask = ids.new_zeros(ids.shape)
        mask[mask.sum(1) == 0, -1 if self.tokenizer.padding_side == "left" else 0] = 1
        return {"ids": ids.long(), "mask": mask.long()}


def load_tokenizer(folder: Path, shown: str) -> Any:
    """A folder's tokenizer, with something to pad with.

    Language models often have no padding token. Their end token pads then, which changes nothing: masks say what is text, and every
    pooling here follows the mask.

    Args:
        folder: A transformers folder.
        shown: What messages call the model.

    Raises:
        ReleaseError: If it cannot be read.
        NameGrammarError: If it has neither a padding nor an end token.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise ReleaseError(f"{shown}: its tokenizer cannot be read ({reason}); get the folder again") from error
    if tokenizer.pad_token_id is None:
        end = tokenizer.eos_token or tokenizer.sep_token
        if end is None:
            raise NameGrammarError(
                f"{shown}: its tokenizer has no pad token and no end token to pad with; set one in the tokenizer files of the folder"
            )
        tokenizer.pad_token = end
    return tokenizer
