"""Names -> builders: what `modalign zoo list` prints and what recipes may name.

A new part is one file and one line here. Other packages add theirs through the entry-point group
`modalign.<kind>s` (for example `modalign.losses`), or `modalign train --allow_module my_pkg` imports a module that registers them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from .errors import AssemblyError, nearest

T = TypeVar("T", bound=type)


@cache
def _entries(group: str) -> tuple[EntryPoint, ...]:
    """The entry points of a group; what is installed does not change while a process runs, and finding out takes a while."""
    return tuple(entry_points(group=group))


class Registry:
    """A table of classes by name, imported on first use.

    Args:
        kind: What the table holds, in the singular; used in messages.
        group: Entry-point group through which other packages add to it.
        builtin: Name -> `module:Class`, relative to `modalign.zoo`.
    """

    def __init__(self, kind: str, group: str, builtin: dict[str, str]) -> None:
        self.kind = kind
        self.group = group
        self._where = dict(builtin)
        self._classes: dict[str, type] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that adds a class under a name.

        Raises:
            AssemblyError: If the name is taken.
        """

        def add(cls: T) -> T:
            if name in self._where or name in self._classes:
                raise AssemblyError(f"there is already a {self.kind} named {name!r}; choose another name")
            self._classes[name] = cls
            return cls

        return add

    def names(self) -> list[str]:
        """All known names, sorted."""
        extern = {entry.name for entry in _entries(self.group)}
        return sorted({*self._where, *self._classes, *extern})

    def get(self, name: str) -> Any:
        """The class of that name.

        Raises:
            AssemblyError: If there is none; the message suggests the nearest.
        """
        if not isinstance(name, str):
            raise AssemblyError(f"a {self.kind} is given by its name (there are: {', '.join(self.names())}), not as {name!r}")
        if name in self._classes:
            return self._classes[name]
        if name in self._where:
            module, _, attribute = self._where[name].partition(":")
            self._classes[name] = getattr(import_module(f".{module}", __package__), attribute)
            return self._classes[name]
        for entry in _entries(self.group):
            if entry.name == name:
                return entry.load()
        raise AssemblyError(f"there is no {self.kind} named {name!r}{nearest(name, self.names())}")


PROJECTORS = Registry(
    "projector",
    "modalign.projectors",
    {
        "linear": "projectors.linear:LinearProjector",
        "mlp": "projectors.mlp:MlpProjector",
        "residual_mlp": "projectors.residual_mlp:ResidualMlpProjector",
        "proclip": "projectors.residual_mlp:ProClipProjector",
        "llm2clip": "projectors.residual_mlp:Llm2ClipProjector",
        "identity": "projectors.identity:IdentityProjector",
        "mlp_residual": "projectors.mlp_residual:MlpResidualProjector",
        "pooler": "projectors.pooler:PoolerProjector",
        "spatial_pool": "projectors.spatial_pool:SpatialPoolProjector",
        "pixel_shuffle": "projectors.pixel_shuffle:PixelShuffleProjector",
        "perceiver": "projectors.perceiver:PerceiverProjector",
        "honeybee_resampler": "projectors.honeybee_resampler:HoneybeeResampler",
        "q_former": "projectors.q_former:QFormerProjector",
        "c_abstractor": "projectors.c_abstractor:CAbstractor",
        "d_abstractor": "projectors.d_abstractor:DAbstractor",
    },
)
LOSSES = Registry(
    "loss",
    "modalign.losses",
    {
        "clip": "losses.clip:ClipLoss",
        "tiled_clip": "losses.tiled_clip:TiledClipLoss",
        "siglip": "losses.siglip:SigLipLoss",
        "multi_positive": "losses.multi_positive:MultiPositiveLoss",
        "explicit_negatives": "losses.explicit_negatives:ExplicitNegativesLoss",
        "grouped_negatives": "losses.grouped_negatives:GroupedNegativesLoss",
        "negclip": "losses.negclip:NegClipLoss",
        "reweighted_negatives": "losses.reweighted_negatives:ReweightedNegativesLoss",
        "long_clip": "losses.long_clip:LongClipLoss",
        "matryoshka": "losses.matryoshka:MatryoshkaLoss",
        "caption": "losses.caption:CaptionLoss",
        "next_token": "losses.next_token:NextTokenLoss",
        "logit_distillation": "losses.logit_distillation:LogitDistillation",
        "ensemble_distillation": "losses.ensemble_distillation:EnsembleDistillation",
        "feature_distillation": "losses.feature_distillation:FeatureDistillation",
        "structure_distillation": "losses.structure_distillation:StructureDistillation",
        "layerwise_alignment": "losses.layerwise_alignment:LayerwiseAlignment",
        "output_consistency": "losses.output_consistency:OutputConsistency",
        "series_error": "losses.series_error:SeriesError",
        "pinball": "losses.pinball:Pinball",
        "label_cross_entropy": "losses.label_cross_entropy:LabelCrossEntropy",
    },
)
METRICS = Registry(
    "metric",
    "modalign.metrics",
    {
        "retrieval": "metrics.retrieval:RetrievalMetric",
        "ranked_lists": "metrics.ranked_lists:ranked_lists",
        "zero_shot": "metrics.zero_shot:zero_shot_accuracy",
        "modality_gap": "metrics.modality_gap:modality_gap",
        "alignment": "metrics.alignment_uniformity:alignment",
        "uniformity": "metrics.alignment_uniformity:uniformity",
        "cross_uniformity": "metrics.alignment_uniformity:cross_uniformity",
        "cka": "metrics.cka:cka",
        "cknna": "metrics.cknna:cknna",
        "mutual_knn": "metrics.neighbours:mutual_knn",
        "cycle_knn": "metrics.neighbours:cycle_knn",
        "lcs_knn": "metrics.neighbours:lcs_knn",
        "edit_distance_knn": "metrics.neighbours:edit_distance_knn",
        "svcca": "metrics.cca:svcca",
        "translation_precision": "metrics.maps.lexicon:translation_precision",
        "mexa": "metrics.mexa:mexa",
        "calinski_harabasz": "metrics.cluster_indices:calinski_harabasz",
        "xie_beni": "metrics.cluster_indices:xie_beni",
        "aqi": "metrics.aqi:aqi",
        "forecast": "metrics.forecast:ForecastMetric",
        "smape": "metrics.m4:smape",
        "mase": "metrics.m4:mase",
        "owa": "metrics.m4:owa",
        "anomaly": "metrics.anomaly:anomaly_detection",
        "captions": "metrics.captions:caption_scores",
        "bleu": "metrics.text.bleu:bleu",
        "cider": "metrics.text.cider:cider",
        "rouge_l": "metrics.text.rouge:rouge_l",
        "grounding": "metrics.grounding:grounding_scores",
        "grounding_baselines": "metrics.grounding_baselines:grounding_baselines",
        "pope": "metrics.pope:pope_scores",
        "exact_match": "metrics.vqa:exact_match",
        "vqa_accuracy": "metrics.vqa:vqa_accuracy",
        "anls": "metrics.vqa:anls",
        "token_f1": "metrics.vqa:token_f1",
    },
)
FAMILIES = Registry(
    "family",
    "modalign.families",
    {
        "clip": "families.clip.model:ClipModel",
        "siglip": "families.siglip.model:SigLipModel",
        "lit": "families.lit.model:LitModel",
        "longclip": "families.longclip.model:LongClipModel",
        "coca": "families.coca.model:CocaModel",
        "proclip": "families.proclip.model:ProClipModel",
        "calf": "families.calf.model:CalfModel",
        "dlinear": "families.dlinear.model:DLinearModel",
        "patchtst": "families.patchtst.model:PatchTstModel",
        "fsca": "families.fsca.model:FscaModel",
        "llava": "families.llava.model:LlavaModel",
        "llava_next": "families.llava_next.model:LlavaNextModel",
        "llava_onevision": "families.llava_onevision.model:LlavaOnevisionModel",
        "vpp_llava": "families.vpp_llava.model:VppLlavaModel",
        "aligngpt": "families.aligngpt.model:AlignGptModel",
    },
)
#: MODALITY.KIND; which kind a name or folder is of is found from its files (`zoo/encoders/image/build.py`)
ENCODERS = Registry(
    "encoder",
    "modalign.encoders",
    {
        "image.timm": "encoders.image.timm:TimmImageEncoder",
        "image.transformers": "encoders.image.hf:HuggingFaceImageEncoder",
        "image.open_clip": "encoders.image.open_clip:OpenClipImageEncoder",
        "text.transformers": "encoders.text.embedder:TextEmbedder",
        "text.sentence_transformers": "encoders.text.sentence_embedder:SentenceEmbedder",
        "text.open_clip": "encoders.text.open_clip:OpenClipTextEncoder",
    },
)
#: what a method adds to a stack (`zoo/stack/hooks.py`)
HOOKS = Registry(
    "hook",
    "modalign.hooks",
    {
        "vpp_global": "stack.methods.vpp_global:VppGlobal",
        "vpp_local": "stack.methods.vpp_local:VppLocal",
        "alignment_levels": "stack.methods.alignment_levels:AlignmentLevels",
    },
)
