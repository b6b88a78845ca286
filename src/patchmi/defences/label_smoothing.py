"""Label smoothing, and its negative: how sure of its classes a classifier is taught to be.

L. Struppek, D. Hintersdorf, K. Kersting, "Be Careful What You Smooth For: Label Smoothing Can Be a Privacy
Shield but Also a Catalyst for Model Inversion Attacks", ICLR 2024. Of C classes the image's own is to get

    1 - a + a/C,   every other one a/C.

A positive a draws the images of a class together, and the paper finds that such a classifier gives more away.
A negative one pushes the other classes' probabilities ever further down.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier
from patchmi.target import Batch, Hooks
from patchmi.types import Labels, Logits

RAMP_START = 0.5
"""Share of the training before which a negative strength is 0: the classes must have been learnt by then."""
CAP = 50.0
"""Of a class's -log p under a negative strength; from 17 on the own class has 1 in float32 already."""


@dataclass(frozen=True)
class LabelSmoothing(AbstractDefence):
    """Cross-entropy against smoothed classes.

    A positive strength holds from the first step: no defence, but the positive control of those that are. A
    negative one is 0 in the first half of the training and rises in a straight line to its end.

    Args:
        strength: a, above -1 and below 1, not 0.

    Differs from the paper: under a negative strength no class's -log p counts for more than `CAP`. Otherwise
    the loss has no lowest value, and the logits grow for as long as the training lasts. The line rises to the
    last step; in the published code it ends after three quarters of the epochs.
    """

    strength: float

    def __post_init__(self) -> None:
        if not 0 < abs(self.strength) < 1:
            raise ValueError(
                f"label-smoothing, strength {self.strength:g}: give one above -1 and below 1, but not 0"
            )

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """The loss alone is changed."""
        del network, lesson

        def loss(batch: Batch) -> Float[Tensor, ""]:
            return smoothed_cross_entropy(
                batch.model(batch.images),
                batch.labels,
                strength=strength_at(batch.share_done, self.strength),
                cap=CAP if self.strength < 0 else math.inf,
            )

        yield Hooks(loss=loss)


def strength_at(share_done: float, strength: float) -> float:
    """A positive strength from the start on; a negative one on its ramp."""
    if strength > 0:
        return strength
    return strength * max(0.0, (share_done - RAMP_START) / (1 - RAMP_START))


def smoothed_cross_entropy(
    logits: Logits, labels: Labels, *, strength: float, cap: float = math.inf
) -> Float[Tensor, ""]:
    """(1 - a)·(-log p_y) + a·(mean over classes c of -log p_c), averaged over images.

    Args:
        logits: Of the classifier.
        labels: y.
        strength: a, of either sign.
        cap: The most that -log p_c counts for in the mean.
    """
    log_probabilities = torch.log_softmax(logits.float(), dim=1)
    own = F.nll_loss(log_probabilities, labels)
    return (1 - strength) * own + strength * (-log_probabilities).clamp_max(cap).mean()
