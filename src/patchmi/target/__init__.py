"""Targets: the doors to them, how they are opened, from files or at an address, probed and trained."""

from patchmi.target.access import AccessDenied, AsClassifier, Queries, Target, WhiteBox, answers
from patchmi.target.adapters import as_target
from patchmi.target.address import is_address
from patchmi.target.black_box import (
    PLAIN,
    Account,
    BlackBox,
    BudgetSpent,
    LabelAccess,
    Oracle,
    OutputMode,
    ScoreAccess,
    answer_of,
    open_black_box,
    oracle_of,
)
from patchmi.target.description import Description
from patchmi.target.endpoint import Endpoint, EndpointFailed, EndpointOracle
from patchmi.target.load import Opened, open_target
from patchmi.target.misreading import AccuracyCheck, TargetMisread, check_accuracy
from patchmi.target.probe import probe_target
from patchmi.target.reading import TargetFile, TargetInvalid
from patchmi.target.train import (
    PLAIN_TRAINING,
    Batch,
    Hooks,
    Training,
    cross_entropy,
    train_classifier,
)

__all__ = [
    "PLAIN",
    "PLAIN_TRAINING",
    "AccessDenied",
    "Account",
    "AccuracyCheck",
    "AsClassifier",
    "Batch",
    "BlackBox",
    "BudgetSpent",
    "Description",
    "Endpoint",
    "EndpointFailed",
    "EndpointOracle",
    "Hooks",
    "LabelAccess",
    "Opened",
    "Oracle",
    "OutputMode",
    "Queries",
    "ScoreAccess",
    "Target",
    "TargetFile",
    "TargetInvalid",
    "TargetMisread",
    "Training",
    "WhiteBox",
    "answer_of",
    "answers",
    "as_target",
    "check_accuracy",
    "cross_entropy",
    "is_address",
    "open_black_box",
    "open_target",
    "oracle_of",
    "probe_target",
    "train_classifier",
]
