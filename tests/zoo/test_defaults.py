"""Defaults that the published methods name: a changed one would be another method under the same name."""

import inspect

import pytest

from modalign.datasets.series.config import SeriesConfig
from modalign.zoo.encoders.series.instance_norm import InstanceNorm
from modalign.zoo.families.calf.config import CalfConfig
from modalign.zoo.families.dlinear.model import DLinearConfig
from modalign.zoo.families.fsca.config import FscaConfig
from modalign.zoo.language.loading import LanguageModelConfig
from modalign.zoo.language.lora import LoraSettings
from modalign.zoo.language.word_dictionary import word_dictionary
from modalign.zoo.losses.caption import CaptionLoss, caption_loss
from modalign.zoo.losses.clip import ClipLoss, clip_loss
from modalign.zoo.losses.explicit_negatives import ExplicitNegativesLoss, explicit_negatives_loss
from modalign.zoo.losses.feature_distillation import FeatureDistillation, feature_distillation
from modalign.zoo.losses.layerwise_alignment import LayerwiseAlignment, layerwise_alignment
from modalign.zoo.losses.long_clip import LongClipLoss, long_clip_loss
from modalign.zoo.losses.matryoshka import MatryoshkaLoss
from modalign.zoo.losses.multi_positive import MultiPositiveLoss, multi_positive_loss
from modalign.zoo.losses.output_consistency import OutputConsistency
from modalign.zoo.losses.series_error import SeriesError
from modalign.zoo.losses.siglip import SigLipLoss
from modalign.zoo.losses.structure_distillation import StructureDistillation, structure_distillation
from modalign.zoo.metrics.alignment_uniformity import alignment, cross_uniformity, uniformity
from modalign.zoo.metrics.anomaly import anomaly_detection
from modalign.zoo.metrics.aqi import aqi, aqi_by_axiom
from modalign.zoo.metrics.cka import cka, hsic
from modalign.zoo.metrics.cknna import cknna
from modalign.zoo.metrics.cluster_indices import fuzzy_xie_beni
from modalign.zoo.metrics.maps.csls import csls, translate
from modalign.zoo.metrics.maps.lexicon import translation_precision
from modalign.zoo.metrics.maps.procrustes import orthogonality_step
from modalign.zoo.metrics.maps.rcsls import RcslsSettings, rcsls_objective
from modalign.zoo.metrics.maps.refinement import induced_pairs, refine
from modalign.zoo.metrics.maps.self_learning import SelfLearning, unsupervised_pairs, vecmap
from modalign.zoo.metrics.maps.vecmap import advanced_map, normalised
from modalign.zoo.metrics.neighbours import cycle_knn, edit_distance_knn, lcs_knn, mutual_knn
from modalign.zoo.metrics.ranked_lists import ndcg, ranked_lists
from modalign.zoo.metrics.retrieval import RetrievalMetric, retrieval_recall
from modalign.zoo.metrics.sentence_vectors import position_weighted
from modalign.zoo.metrics.zero_shot import logits, zero_shot_accuracy
from modalign.zoo.projectors.residual_mlp import Llm2ClipProjector, ProClipProjector

#: (section of the specification, what has the defaults, the defaults)
DEFAULTS = [
    ("1.2 projector", ProClipProjector, {"blocks": 1, "expansion": 8, "dropout": 0.0, "normalize_input": True}),
    ("1.2 projector", Llm2ClipProjector, {"blocks": 4, "expansion": 2, "dropout": 0.0, "normalize_input": True}),
    ("1.3 inheritance", feature_distillation, {"reduction": "sum", "mask": None}),
    ("1.3 inheritance", FeatureDistillation, {"reduction": "sum", "gather": False, "mask": None}),
    ("1.3 structure", structure_distillation, {"distance": "l2", "penalty": "smooth_l1", "reduction": "sum"}),
    ("1.3 structure", StructureDistillation, {"distance": "l2", "penalty": "smooth_l1", "reduction": "sum", "gather": False}),
    ("3.1 CLIP", ClipLoss, {"local_loss": True, "gather_with_grad": True, "label_smoothing": 0.0, "chunk": None}),
    ("3.1 CLIP", clip_loss, {"label_smoothing": 0.0}),
    ("3.2 SigLIP", SigLipLoss, {"exchange": "bidir", "chunk": None}),
    ("3.3 CoCa", CaptionLoss, {"pad_id": 0}),
    ("3.3 CoCa", caption_loss, {"pad_id": 0}),
    ("3.6 Long-CLIP", LongClipLoss, {"components": 32, "short_weight": 1.0, "label_smoothing": 0.1, "gather_components": False}),
    ("3.6 Long-CLIP", long_clip_loss, {"components": 32, "short_weight": 1.0, "label_smoothing": 0.1}),
    ("3.8 multi-positive", MultiPositiveLoss, {"duplicates": "positives"}),
    ("3.8 multi-positive", multi_positive_loss, {"duplicates": "positives"}),
    ("3.9 explicit negatives", ExplicitNegativesLoss, {"scale": 50.0}),
    ("3.9 explicit negatives", explicit_negatives_loss, {"logit_scale": 50.0}),
    ("3.10 Matryoshka", MatryoshkaLoss, {"weights": None}),
    ("5.1 MEXA", position_weighted, {"from_first_token": True}),
    ("5.2 MUSE", orthogonality_step, {"beta": 0.001}),
    ("5.2 MUSE", refine, {"rounds": 5, "method": "csls", "k": 10}),
    ("5.2 MUSE", induced_pairs, {"method": "csls", "k": 10}),
    ("5.2 CSLS", csls, {"k": 10}),
    ("5.2 CSLS", translate, {"k": 10, "beta": 30.0}),
    ("5.2 P@k", translation_precision, {"method": "csls", "k": 10, "beta": 30.0, "missing": "dropped"}),
    (
        "5.2 RCSLS",
        RcslsSettings,
        {"k": 10, "rate": 1.0, "smallest_rate": 1e-4, "iterations": 10, "spectral": False, "vocabulary": 200_000},
    ),
    ("5.2 RCSLS", rcsls_objective, {"k": 10}),
    (
        "5.2 VecMap",
        SelfLearning,
        {"vocabulary": 20_000, "neighbourhood": 10, "keep": 0.1, "growth": 2.0, "patience": 50, "threshold": 1e-6, "start": 4000},
    ),
    ("5.2 VecMap", vecmap, {"preset": "supervised"}),
    ("5.2 VecMap", unsupervised_pairs, {"count": 4000, "k": 10}),
    ("5.2 VecMap", normalised, {"steps": ("unit", "center", "unit")}),
    ("5.2 VecMap", advanced_map, {"reweight": (0.5, 0.5), "dewhiten": True, "dimensions": None}),
    ("5.3 alignment", alignment, {"alpha": 2.0}),
    ("5.3 uniformity", uniformity, {"t": 2.0}),
    ("5.3 uniformity", cross_uniformity, {"t": 2.0}),
    ("5.4 CKA", cka, {"kernel": "linear", "sigma": 1.0, "unbiased": False}),
    ("5.4 HSIC", hsic, {"kernel": "linear", "sigma": 1.0, "unbiased": False}),
    ("5.4 neighbours", mutual_knn, {"k": 10}),
    ("5.4 neighbours", cknna, {"k": 10}),
    ("5.4 neighbours", cycle_knn, {"k": 10}),
    ("5.4 neighbours", lcs_knn, {"k": 10}),
    ("5.4 neighbours", edit_distance_knn, {"k": 10}),
    ("5.5 Xie-Beni", fuzzy_xie_beni, {"m": 2.0}),
    ("5.5 AQI", aqi, {"g": 0.5}),
    ("5.5 AQI", aqi_by_axiom, {"g": 0.5, "reference": "default"}),
    ("5.6 retrieval", retrieval_recall, {"recall": "hit", "ks": (1, 5, 10)}),
    ("5.6 retrieval", RetrievalMetric, {"recall": "hit"}),
    ("5.6 nDCG", ndcg, {"gain": "linear"}),
    ("5.6 nDCG", ranked_lists, {"gain": "linear"}),
    ("5.7 zero-shot", logits, {"scale": 100.0}),
    ("5.7 zero-shot", zero_shot_accuracy, {"ks": (1, 5)}),
    ("CALF, dictionary", word_dictionary, {"components": 500}),
    ("CALF, norm", InstanceNorm, {"eps": 1e-5, "affine": "none", "mean_over": "observed"}),
    (
        "CALF, forward",
        CalfConfig,
        {"look_back": 96, "heads": 12, "ffn": 2048, "dropout": 0.1, "dictionary": 500, "llm": "pretrained"},
    ),
    ("CALF, quirks", CalfConfig, {"strict_reference": False, "last_feature_with_residual": None, "head": "linear"}),
    ("CALF, blocks", LanguageModelConfig, {"blocks": 6}),
    ("CALF, LoRA", LoraSettings, {"rank": 8, "alpha": 32.0, "dropout": 0.1, "targets": None}),
    ("CALF, features", layerwise_alignment, {"gamma": 0.8, "distance": "smooth_l1"}),
    ("CALF, features", LayerwiseAlignment, {"gamma": 0.8, "distance": "smooth_l1"}),
    ("CALF, outputs", OutputConsistency, {"distance": "l1", "mean_over": "kept", "seasonality": 1}),
    ("CALF, task", SeriesError, {"kind": "l1", "mean_over": "kept", "seasonality": 1}),
    ("CALF, tasks", SeriesConfig, {"mask_rate": 0.25, "stride": 1, "scale": "standard", "missing": "mask"}),
    ("CALF, anomaly", anomaly_detection, {"ratio": 1.0}),
    ("FSCA, sequence", FscaConfig, {"look_back": 512, "patch_size": 48, "stride": 48, "segments": 2, "revin": False}),
    ("FSCA, graphs", FscaConfig, {"coarse_width": 128, "coarse_weight": 1e-4, "read_width": 256, "strict_reference": False}),
    ("FSCA, dropout", FscaConfig, {"in_dropout": 0.0, "out_dropout": 0.1}),
    ("DLinear", DLinearConfig, {"look_back": 96, "kernel": 25, "individual": False}),
]


def test_defaults_that_are_made_anew():
    assert FscaConfig().language.blocks == 4 and FscaConfig().fine_points == FscaConfig().coarse_points == [0, 2, 4]
    assert CalfConfig().lora == LoraSettings() and CalfConfig().quantiles == [round(0.1 * level, 1) for level in range(1, 10)]
    assert SeriesConfig().split == {"train": 0.7, "val": 0.1, "test": 0.2}


@pytest.mark.parametrize(("where", "of", "wanted"), DEFAULTS, ids=[f"{row[0]} {row[1].__name__}" for row in DEFAULTS])
def test_default(where, of, wanted):
    parameters = inspect.signature(of).parameters
    assert {name: parameters[name].default for name in wanted} == wanted, where
