"""Principal word embeddings: a few hundred vectors in place of a vocabulary of tens of thousands.

Source: CALF (arXiv 2403.07300), script `pca.py` of its code: principal components of the transposed embedding matrix, whose scores are
the dictionary. The script's randomised solver depends on a global seed; here the decomposition is exact and the signs are fixed.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..errors import AssemblyError

_CHUNK = 8192  # rows of the vocabulary at a time, in float64


def word_dictionary(table: Tensor, components: int = 500) -> Tensor:
    """The first K rows of `D = (U S)ᵀ`, where `U S Vᵀ` is the SVD of the centred `Eᵀ`.

    Its D samples are the coordinates and its V features the words, so centring takes the mean over its coordinates from every word.
    `U S` needs no more than the eigenvectors of the D x D matrix `Eᵀ_c E_c`, computed in float64, which takes seconds for any vocabulary.
    Rows have mean zero, are orthogonal to each other and as long as their singular values, which decrease. The sign of a row is such
    that its entry of largest magnitude is positive.

    Args:
        table: E (V, D), token embeddings.
        components: K.

    Returns:
        (K, D) float32.

    Raises:
        AssemblyError: If the table has fewer components.
    """
    words, width = table.shape
    most = min(words, width - 1)  # centring takes one
    if not 1 <= components <= most:
        raise AssemblyError(
            f"model.dictionary: {components} must be from 1 to {most}, for embeddings of {words} words and width {width}"
        )
    gram = torch.zeros(width, width, dtype=torch.float64, device=table.device)
    for chunk in table.detach().split(_CHUNK):
        centred = chunk.double() - chunk.double().mean(1, keepdim=True)
        gram += centred.T @ centred
    values, vectors = torch.linalg.eigh(gram)
    order = slice(width - components, width)
    rows = (vectors[:, order] * values[order].clamp(min=0).sqrt()).T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return (rows * torch.where(largest < 0, -1.0, 1.0)).float()


class WordDictionary(nn.Module):
    """The dictionary as a buffer: saved with the model, never trained.

    Args:
        rows: (K, D), from `word_dictionary`; zeros of that shape where a release brings them.
    """

    rows: Tensor

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)

    def forward(self) -> Tensor:
        """(K, D)."""
        return self.rows
