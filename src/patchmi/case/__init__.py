"""A user's audit before it begins: model, images and judges opened, checked and fitted to each other."""

from patchmi.case.images import PrivateFiles, class_order, open_private
from patchmi.case.judges import (
    judge_trainings,
    open_judges,
    reference_training,
    train_judges,
    train_reference,
)
from patchmi.case.pictures import in_order_of, open_pictures
from patchmi.case.public import open_public, public_notes
from patchmi.case.subject import Case, open_case
from patchmi.case.training import Course, Trained, train_on, train_target

__all__ = [
    "Case",
    "Course",
    "PrivateFiles",
    "Trained",
    "class_order",
    "in_order_of",
    "judge_trainings",
    "open_case",
    "open_judges",
    "open_pictures",
    "open_private",
    "open_public",
    "public_notes",
    "reference_training",
    "train_judges",
    "train_on",
    "train_reference",
    "train_target",
]
