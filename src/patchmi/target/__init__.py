"""Targets: the doors to them, and how they are trained."""

from patchmi.target.access import AccessDenied, AsClassifier, Queries, Target, WhiteBox, answers
from patchmi.target.train import Training, train_classifier

__all__ = [
    "AccessDenied",
    "AsClassifier",
    "Queries",
    "Target",
    "Training",
    "WhiteBox",
    "answers",
    "train_classifier",
]
