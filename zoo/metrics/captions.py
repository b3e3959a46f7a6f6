"""Captions against reference captions: the COCO caption evaluation without its Java parts (METEOR, SPICE)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .keyed import mean
from .text.bleu import corpus_bleu
from .text.cider import cider_by_key
from .text.pairs import token_pairs
from .text.rouge import rouge_l_by_key
from .text.tokens import Tokenizer, ptb_tokens


def caption_scores(
    predictions: Mapping[str, str], references: Mapping[str, Sequence[str]], *, tokenizer: Tokenizer = ptb_tokens
) -> dict[str, float]:
    """BLEU-1 to BLEU-4, CIDEr-D and ROUGE-L with the settings of the COCO evaluation; texts become tokens once.

    Args:
        predictions: Key -> caption.
        references: Key -> captions, any number.
        tokenizer: Text -> tokens; the default differs slightly from the Java tokenizer (`text/tokens.py`).

    Returns:
        `BLEU-1` ... `BLEU-4` and `ROUGE-L` between 0 and 1, `CIDEr` between 0 and 10.

    Raises:
        DataError: If the keys differ, or a reference has no word.
    """
    pairs = token_pairs("captions", predictions, references, tokenizer)
    scores = corpus_bleu(pairs)
    return scores | {"CIDEr": mean(cider_by_key(pairs).values()), "ROUGE-L": mean(rouge_l_by_key(pairs).values())}
