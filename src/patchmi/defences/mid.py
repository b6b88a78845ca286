"""MID: the classifier decides by a noisy code that may know little of the image.

T. Wang, Y. Zhang, R. Jia, "Improving Robustness to Model Inversion Attacks via Mutual Information
Regularization", AAAI 2021. What image and answer share is bounded by what image and code share, and that by

    KL(N(μ(x), σ(x)²) ‖ N(0, 1)),

after A. A. Alemi et al., "Deep Variational Information Bottleneck", ICLR 2017.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Bottleneck, Classifier
from patchmi.target import Batch, Hooks
from patchmi.types import Labels, Logits


@dataclass(frozen=True)
class Mid(AbstractDefence):
    """The variational information bottleneck as a head.

    Args:
        strength: b, the weight of the code's information; above 0.

    Differs from the paper: noise is drawn in training alone. In use the code is its mean, so answers do not
    change from one question to the next, and every white-box attack has the mean's clean gradient: nothing of
    what such an attack misses was hidden by noise.
    """

    strength: float

    variant: ClassVar[str] = "bottleneck"

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"mid, strength {self.strength:g}: give a number above 0")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """The loss is changed, and the head is a `Bottleneck` by then.

        Raises:
            ValueError: It is none.
        """
        del lesson
        head = network.head
        if not isinstance(head, Bottleneck):
            raise ValueError("mid: the network has no bottleneck; build it as NAME+bottleneck")

        def loss(batch: Batch) -> Float[Tensor, ""]:
            mean, deviation = head.encode(network.features(batch.images))
            logits = head.decide(mean, deviation)
            return mid_loss(logits, batch.labels, mean=mean, deviation=deviation, strength=self.strength)

        yield Hooks(loss=loss)


def code_information(
    *, mean: Float[Tensor, "n code"], deviation: Float[Tensor, "n code"]
) -> Float[Tensor, " n"]:
    """KL(N(μ, σ²) ‖ N(0, 1)) = Σ_k ½(μ² + σ² - 1) - log σ, in nats an image."""
    mean, deviation = mean.float(), deviation.float()
    return ((mean.square() + deviation.square() - 1) / 2 - deviation.log()).sum(dim=1)


def mid_loss(
    logits: Logits,
    labels: Labels,
    *,
    mean: Float[Tensor, "n code"],
    deviation: Float[Tensor, "n code"],
    strength: float,
) -> Float[Tensor, ""]:
    """Cross-entropy + b · (mean over images of the code's information).

    Args:
        logits: Of codes that were drawn.
        labels: Classes.
        mean: μ of each image's code.
        deviation: σ, above 0.
        strength: b.
    """
    information = code_information(mean=mean, deviation=deviation).mean()
    return F.cross_entropy(logits.float(), labels) + strength * information
