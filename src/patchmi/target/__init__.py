"""Targets: the doors to them, and how they are trained."""

from patchmi.target.access import Queries, Target, WhiteBox
from patchmi.target.train import Training, train_classifier

__all__ = ["Queries", "Target", "Training", "WhiteBox", "train_classifier"]
