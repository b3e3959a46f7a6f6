"""An alignment quality index: how well two kinds of text (safe and unsafe, say) separate in a model's hidden states.

The default is a definition of our own, after the two indices of arXiv 2506.13901 (AQI): for vectors h = sum_l alpha_l h_l,
`AQI = g CH / (CH + n - K) + (1 - g) / (1 + XB)`. Both terms lie in [0, 1], higher is better separated, and rotating, shifting or
uniformly scaling h changes nothing. For K = 2 the first term is the share of variance that the labels explain.
The variant `tsne3d` is that of the published evaluation code; its scores are relative to the axioms measured together, and because t-SNE
discards scale and is computed anew for every set, not comparable between models. The paper's own combination is not implemented.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from ..errors import AssemblyError, DataError
from .cluster_indices import calinski_harabasz, xie_beni
from .rows import check_choice, real


def pooled_layers(hidden: Tensor, weights: Sequence[float] | None = None) -> Tensor:
    """`h = sum_l alpha_l h_l`.

    Args:
        hidden: (L, n, D) one vector per layer and text (masked mean over tokens).
        weights: alpha, one per layer, sum 1; default all equal.

    Raises:
        DataError: If the weights do not fit.
    """
    given = torch.full((len(hidden),), 1 / len(hidden)) if weights is None else torch.tensor(weights)
    if len(given) != len(hidden) or bool((given < 0).any()) or abs(given.double().sum().item() - 1) > 1e-4:
        raise DataError(f"weights: one share per layer that sum to 1 are wanted for {len(hidden)} layers; got {weights}")
    hidden = real(hidden)
    return torch.einsum("l,lnd->nd", given.to(hidden), hidden)


def aqi(x: Tensor, labels: Tensor, g: float = 0.5) -> float:
    """The index of one set, in [0, 1]; groups with one centre give 0.

    Args:
        x: (n, D) pooled vectors.
        labels: (n,) group of each.
        g: Weight of the Calinski-Harabasz term.

    Raises:
        DataError: See `calinski_harabasz`.
        AssemblyError: If g is not a share.
    """
    _check_weight(g)
    ch, xb = calinski_harabasz(x, labels), xie_beni(x, labels)
    explained = 1.0 if ch == float("inf") else ch / (ch + len(x) - len(labels.unique()))
    return g * explained + (1 - g) / (1 + xb)


def aqi_by_axiom(
    sets: Mapping[str, tuple[Tensor, Tensor]],
    g: float = 0.5,
    reference: Literal["default", "tsne3d"] = "default",
    seed: int = 0,
) -> dict[str, float]:
    """The index of several sets (axioms), and their mean under `mean`.

    `tsne3d`: each set is brought to 3 dimensions by t-SNE; CH is scaled to 0..100 between the least and the largest of the sets; XB becomes
    `100 (1 - sigmoid((XB - median) / interquartile range))`, at least 10; the index is `g CH + (1 - g) XB`, in 0..100.

    Args:
        sets: Name -> (vectors (n, D), labels (n,)).
        g: Weight of the Calinski-Harabasz term.
        reference: `default`, our definition, in [0, 1]; or `tsne3d`, which needs scikit-learn and at least 2 sets.
        seed: Of t-SNE.

    Raises:
        DataError: If there are too few sets or vectors.
        AssemblyError: If scikit-learn is not installed.
    """
    check_choice("reference", reference, ("default", "tsne3d"))
    _check_weight(g)
    if not sets or (reference == "tsne3d" and len(sets) < 2):
        raise DataError(f"the index is scaled over the sets measured together: give at least {1 + (reference == 'tsne3d')}")
    if reference == "default":
        found = {name: aqi(x, labels, g) for name, (x, labels) in sets.items()}
    else:
        found = _relative({name: (_tsne(x, seed), labels) for name, (x, labels) in sets.items()}, g)
    return found | {"mean": sum(found.values()) / len(found)}


def _relative(sets: Mapping[str, tuple[Tensor, Tensor]], g: float) -> dict[str, float]:
    ch = torch.tensor([calinski_harabasz(*one) for one in sets.values()], dtype=torch.float64)
    xb = torch.tensor([xie_beni(*one) for one in sets.values()], dtype=torch.float64)
    range_ch = (ch.max() - ch.min()).clamp(min=torch.finfo(torch.float64).tiny)
    low, middle, high = torch.quantile(xb, torch.tensor([0.25, 0.5, 0.75], dtype=torch.float64))
    spread = high - low if high > low else torch.ones((), dtype=torch.float64)
    scaled = 100 * (ch - ch.min()) / range_ch
    compact = (100 * (1 - torch.sigmoid((xb - middle) / spread))).clamp(min=10)
    return dict(zip(sets, (g * scaled + (1 - g) * compact).tolist(), strict=True))


def _tsne(x: Tensor, seed: int) -> Tensor:
    try:
        from sklearn.manifold import TSNE
    except ImportError:
        raise AssemblyError(
            "reference tsne3d needs scikit-learn: pip install 'modalign[evaluation]', or take the default definition"
        ) from None
    if len(x) < 5:
        raise DataError(f"t-SNE to 3 dimensions needs at least 5 vectors, there are {len(x)}")
    reduced = TSNE(3, perplexity=min(30.0, (len(x) - 1) / 3), init="pca" if x.shape[1] >= 3 else "random", random_state=seed)
    return torch.from_numpy(reduced.fit_transform(real(x).cpu().numpy()))


def _check_weight(g: float) -> None:
    if not 0 <= g <= 1:
        raise AssemblyError(f"g is {g}; the weight of the Calinski-Harabasz term lies between 0 and 1")
