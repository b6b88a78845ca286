"""DP-SGD: each image's gradient is clipped, and their sum is noisy.

M. Abadi, A. Chu, I. Goodfellow, H. B. McMahan, I. Mironov, K. Talwar, L. Zhang, "Deep Learning with
Differential Privacy", CCS 2016. Gradients, noise and accounting are opacus' (A. Yousefpour et al.,
arXiv 2109.12298): `pip install 'patchmi[dp]'`.
"""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any, ClassVar

import torch
from jaxtyping import Int
from torch import Tensor, nn

from patchmi.defences.base import AbstractDefence, Lesson
from patchmi.networks import Classifier
from patchmi.target import Hooks

CLIPPING_NORM = 1.0
"""Of one image's gradient. Adam's steps hardly depend on it: it scales gradients and noise alike."""


def draw_probability(image_count: int, batch_size: int) -> float:
    """The probability with which each image is in a batch, so that `batch_size` are on average."""
    return min(1.0, batch_size / image_count)


def poisson_batches(image_count: int, batch_size: int) -> Iterator[Int[Tensor, " batch"]]:
    """Places of images, a batch at a time: each image by a coin of its own. A batch may be empty.

    Args:
        image_count: Images to draw from.
        batch_size: Images a batch, on average.
    """
    probability = draw_probability(image_count, batch_size)
    while True:
        yield (torch.rand(image_count, dtype=torch.float64) < probability).nonzero()[:, 0]


def tolerated_delta(image_count: int) -> float:
    """δ: 1e-5, or a tenth of one image's share where that is less."""
    return min(1e-5, 1 / (10 * image_count))


@contextmanager
def per_sample_gradients(network: nn.Module) -> Iterator[None]:
    """Inside, backward passes leave each image's own gradients in the network; outside there is no trace."""
    layouts = [
        layer.register_forward_pre_hook(_in_standard_layout)
        for layer in network.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    hooked = import_opacus().GradSampleModule(network)
    try:
        with warnings.catch_warnings():
            # the first layer's hook misses the gradient of the images, which nothing needs
            warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
            # of an empty batch: strides of a gradient of zeros that is not used
            warnings.filterwarnings("ignore", "grad and param do not obey the gradient layout", UserWarning)
            yield
    finally:
        hooked.to_standard_module()
        for layout in layouts:
            layout.remove()
        for layer in network.modules():
            vars(layer).pop("activations", None)
        for weight in network.parameters():
            vars(weight).pop("summed_grad", None)


def _in_standard_layout(layer: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """What enters a convolution, channels first: channels last, opacus 1.6 silently takes wrong gradients."""
    del layer
    return tuple(some.clone(memory_format=torch.contiguous_format) for some in inputs)


@dataclass(frozen=True)
class DpSgd(AbstractDefence):
    """What the weights say about any one image is bounded, by (ε, δ); the notes give both.

    A step goes along (Σ_i g_i·min(1, C/|g_i|) + N(0, (σC)²))/B: g_i is the gradient of image i of a Poisson
    draw, C the clipping norm, B the mean number of images drawn.

    Args:
        strength: The noise multiplier σ, above 0.

    Differs from the paper: Adam takes the steps, at the trainer's learning rates; ε is of Rényi differential
    privacy (I. Mironov, K. Talwar, L. Zhang, arXiv 1908.10530) instead of the moments accountant.
    """

    strength: float = 1.1

    variant: ClassVar[str] = "group-norm"
    package: ClassVar[tuple[str, str] | None] = ("opacus", "dp")
    training_changes: ClassVar[dict[str, Any]] = {
        "batch_size": 256,  # large: the noise is one for all images of a batch
        "weight_decay": 0.0,  # would pull on weights that learn little from noisy gradients
        "precision": "float32",  # norms and noise of rounded gradients are not those of the accounting
    }

    def __post_init__(self) -> None:
        if not 0 < self.strength < float("inf"):
            raise ValueError(f"dp-sgd, strength {self.strength:g}: give a noise multiplier above 0, as 1.1")

    @contextmanager
    def applied(self, network: Classifier, lesson: Lesson) -> Iterator[Hooks]:
        """Poisson batches, clipped gradients, noise; what was spent is in the notes.

        Raises:
            ValueError: opacus is not installed.
        """
        opacus = import_opacus()
        image_count = len(lesson.images)
        probability = draw_probability(image_count, lesson.training.batch_size)
        accountant = opacus.accountants.RDPAccountant()

        def with_noise(optimiser: torch.optim.Optimizer) -> Any:
            noisy = opacus.optimizers.DPOptimizer(
                optimiser,
                noise_multiplier=self.strength,
                max_grad_norm=CLIPPING_NORM,
                expected_batch_size=probability * image_count,
            )
            noisy.attach_step_hook(accountant.get_optimizer_hook_fn(sample_rate=probability))
            return noisy

        with per_sample_gradients(network):
            yield Hooks(wrap=with_noise, draw=poisson_batches)
        delta = tolerated_delta(image_count)
        with warnings.catch_warnings():
            # every order gives a bound, the last one of the list too
            warnings.filterwarnings("ignore", "Optimal order is the", UserWarning)
            epsilon = accountant.get_epsilon(delta)
        step_count = sum(count for _, _, count in accountant.history)
        lesson.notes.append(
            f"(epsilon, delta) = ({epsilon:.4g}, {delta:.4g}) for one training image more or less, by "
            f"opacus' RDP accountant: {step_count} steps, Poisson sampling at a rate of {probability:.4g}, "
            f"noise multiplier {self.strength:g}, gradients clipped at a norm of {CLIPPING_NORM:g}, group "
            "norm for batch norm."
        )
        lesson.notes.append(
            "Not accounted for: images of a validation split that chose the moment, and the choice of the "
            "settings. Draws and noise are of torch's seeded generators, which are not cryptographic."
        )


def import_opacus() -> ModuleType:
    """The library of per-sample gradients and privacy accountants.

    Raises:
        ValueError: If it is not installed.
    """
    try:
        import opacus
    except ImportError:
        raise ValueError("defence dp-sgd needs opacus: pip install 'patchmi[dp]'") from None
    return opacus
