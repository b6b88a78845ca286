"""BiDO: what a network keeps must depend little on the image and much on its class.

X. Peng et al., "Bilateral Dependency Optimization: Defending Against Model-inversion Attacks", KDD 2022. With
images X, one-hot classes Y and the outputs Z_j of stages of the network

    L = cross-entropy + Σ_j a₁·d(X, Z_j) - a₂·d(Z_j, Y).

d is a measure of dependence between two sets of as many things, taken of their centred kernels
K̄ = HKH, H = I - 11ᵀ/m: normalised HSIC or COCO.

Differs from the paper: both measures are those of its code. HSIC is the normalised one of W.-D. K. Ma,
J. P. Lewis, W. B. Kleijn, "The HSIC Bottleneck", AAAI 2020. COCO looks at all singular values of K̄·L̄ where
A. Gretton et al., "Kernel Constrained Covariance for Dependence Measurement", AISTATS 2005, take the largest.
Three stages are watched, whatever the architecture. All is computed in float64.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Shaped
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier, in_evaluation, stages
from patchmi.target import Batch, Hooks
from patchmi.types import Images, Labels, Logits

Kernel = Float[Tensor, "m m"]
Dependence = Callable[[Kernel, Kernel], Float[Tensor, ""]]

KERNEL_WIDTH = 5.0
"""Of the Gaussian, in root mean squares of what two things' numbers differ by: the published one."""
RIDGE = 1e-5
"""What is added to a kernel before it is inverted, for each thing: the published one."""
LEAST_NORM = 1e-12
"""Of K̄·L̄: the slope of its root has no bound at 0, which a batch of one image reaches."""
WATCHED = 3
MEASURED = 256
"""Images of which d(X, Z) is measured before the training and after it."""


@dataclass(frozen=True)
class BidoHsic(AbstractDefence):
    """BiDO with normalised HSIC.

    Args:
        strength: a₁, above 0; a₂ is ten times as much.
    """

    strength: float

    def __post_init__(self) -> None:
        _check_strength("bido-hsic", self.strength)

    def applied(self, network: Classifier, lesson: Lesson) -> AbstractContextManager[Hooks]:
        """The loss is changed; the notes say what became of d(X, Z)."""
        weights = {"image_weight": self.strength, "class_weight": 10 * self.strength}
        return _depending(network, lesson, normalised_hsic, name="Normalised HSIC", **weights)


@dataclass(frozen=True)
class BidoCoco(AbstractDefence):
    """BiDO with COCO.

    Args:
        strength: a₁, above 0; a₂ is fifty times as much.
    """

    strength: float

    def __post_init__(self) -> None:
        _check_strength("bido-coco", self.strength)

    def applied(self, network: Classifier, lesson: Lesson) -> AbstractContextManager[Hooks]:
        """The loss is changed; the notes say what became of d(X, Z)."""
        weights = {"image_weight": self.strength, "class_weight": 50 * self.strength}
        return _depending(network, lesson, coco, name="COCO", **weights)


def _check_strength(name: str, strength: float) -> None:
    if not 0 < strength < float("inf"):
        raise ValueError(f"{name}, strength {strength:g}: give a number above 0")


@contextmanager
def _depending(
    network: Classifier,
    lesson: Lesson,
    dependence: Dependence,
    *,
    name: str,
    image_weight: float,
    class_weight: float,
) -> Iterator[Hooks]:
    some = lesson.images[torch.randperm(len(lesson.images))[:MEASURED]].to(machine.device())

    def loss(batch: Batch) -> Float[Tensor, ""]:
        logits, hidden = logits_and_hidden(network, batch.images)
        return bido_loss(
            logits,
            batch.labels,
            images=batch.images,
            hidden=hidden,
            dependence=dependence,
            image_weight=image_weight,
            class_weight=class_weight,
        )

    before = image_dependence(network, some, dependence)
    yield Hooks(loss=loss)
    after = image_dependence(network, some, dependence)
    lesson.notes.append(
        f"{name} of images and what the network makes of them (mean over the watched stages, {len(some)} "
        f"training images): {before:.4g} before the training, {after:.4g} after it."
    )


def logits_and_hidden(network: Classifier, images: Images) -> tuple[Logits, list[Tensor]]:
    """Logits, and on the way to them the outputs of three stages, evenly spread, the last among them.

    Networks of fewer stages give those they have.
    """
    parts = stages(network)
    watched = sorted({-(-len(parts) * third // WATCHED) - 1 for third in range(1, WATCHED + 1)})
    hidden: list[Tensor] = []

    def keep(part: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        del part, inputs
        hidden.append(output)

    handles = [parts[place].register_forward_hook(keep) for place in watched]
    try:
        return network(images), hidden
    finally:
        for handle in handles:
            handle.remove()


def image_dependence(network: Classifier, images: Images, dependence: Dependence) -> float:
    """Mean over the watched stages of d(X, Z_j), as the network is in use."""
    with in_evaluation(network), torch.no_grad():
        seen = centred(gaussian_kernel(images))
        _, hidden = logits_and_hidden(network, images)
        values = [dependence(seen, centred(gaussian_kernel(outputs))) for outputs in hidden]
    return float(torch.stack(values).mean())


def bido_loss(
    logits: Logits,
    labels: Labels,
    *,
    images: Images,
    hidden: Sequence[Float[Tensor, "n ..."]],
    dependence: Dependence,
    image_weight: float,
    class_weight: float,
) -> Float[Tensor, ""]:
    """Cross-entropy + Σ_j a₁·d(X, Z_j) - a₂·d(Z_j, Y).

    Args:
        logits: Of the classifier.
        labels: Classes; their kernel is linear in one-hot vectors.
        images: X.
        hidden: Z_1, Z_2 …, any shape behind the first dimension.
        dependence: d, of two centred kernels.
        image_weight: a₁.
        class_weight: a₂.
    """
    seen = centred(gaussian_kernel(images))
    truth = centred(linear_kernel(F.one_hot(labels, logits.shape[1])))
    loss = F.cross_entropy(logits.float(), labels)
    for outputs in hidden:
        kept = centred(gaussian_kernel(outputs))
        loss = loss + image_weight * dependence(seen, kept) - class_weight * dependence(kept, truth)
    return loss


def gaussian_kernel(things: Float[Tensor, "m ..."]) -> Kernel:
    """exp(-‖x_i - x_j‖² / (2·5²·numbers)), numbers being those that a thing consists of."""
    rows = things.flatten(1).double()  # which autocast leaves alone
    squares = rows.square().sum(dim=1)
    distances = (squares[:, None] + squares - 2 * rows @ rows.T).clamp_min(0)
    return torch.exp(-distances / (2 * KERNEL_WIDTH**2 * rows.shape[1]))


def linear_kernel(things: Shaped[Tensor, "m ..."]) -> Kernel:
    """x_i·x_j."""
    rows = things.flatten(1).double()
    return rows @ rows.T


def centred(kernel: Kernel) -> Kernel:
    """HKH, H = I - 11ᵀ/m: the kernel of the same things, their mean in feature space taken off."""
    lines = kernel - kernel.mean(dim=0)
    return lines - lines.mean(dim=1, keepdim=True)


def normalised_hsic(first: Kernel, second: Kernel) -> Float[Tensor, ""]:
    """tr(R_K·R_L), R_K = K̄(K̄ + m·1e-5·I)⁻¹: 0 where nothing is shared, below m - 1.

    The published code centres on one side, KH for HKH; the trace is the same.
    """
    return (_whitened(first) * _whitened(second)).sum()


def _whitened(kernel: Kernel) -> Kernel:
    ridge = RIDGE * len(kernel) * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    return torch.linalg.solve(kernel + ridge, kernel)


def coco(first: Kernel, second: Kernel) -> Float[Tensor, ""]:
    """√‖K̄·L̄‖_F / m: 0 where nothing is shared."""
    return torch.linalg.matrix_norm(first @ second).clamp_min(LEAST_NORM).sqrt() / len(first)
