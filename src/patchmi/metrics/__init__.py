"""Measures: pure functions of tensors, each with its source in the docstring."""

from patchmi.metrics.accuracy import (
    WorstClass,
    class_means,
    cohen_kappa,
    confidence,
    confidence_floor,
    consensus_hits,
    judge_agreement,
    lowest_agreement,
    top_k_accuracy,
    top_k_hits,
    worst_class,
)
from patchmi.metrics.features import extract_features, has_features, predict_logits
from patchmi.metrics.frechet import frechet_distance
from patchmi.metrics.intervals import (
    Estimate,
    clopper_pearson,
    cluster_interval,
    difference_interval,
    maximum_interval,
    zero_success_upper_bound,
)
from patchmi.metrics.neighbours import NeighbourRatio, nearest_distances, neighbour_ratio
from patchmi.metrics.prdc import PRDC, nearest_ball_prdc, prdc, prdc_by_class
from patchmi.metrics.robustness import robust_hits
from patchmi.metrics.student import student_accuracy

__all__ = [
    "PRDC",
    "Estimate",
    "NeighbourRatio",
    "WorstClass",
    "class_means",
    "clopper_pearson",
    "cluster_interval",
    "cohen_kappa",
    "confidence",
    "confidence_floor",
    "consensus_hits",
    "difference_interval",
    "extract_features",
    "frechet_distance",
    "has_features",
    "judge_agreement",
    "lowest_agreement",
    "maximum_interval",
    "nearest_ball_prdc",
    "nearest_distances",
    "neighbour_ratio",
    "prdc",
    "prdc_by_class",
    "predict_logits",
    "robust_hits",
    "student_accuracy",
    "top_k_accuracy",
    "top_k_hits",
    "worst_class",
    "zero_success_upper_bound",
]
