"""The numbers of Patch-MI: ours (`default`) and those published for each data set (`paper-…`)."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from torch import nn

from patchmi.losses import IdentityLoss, PatchReduction
from patchmi.views import (
    Views,
    affine_views,
    paper_celeba_views,
    paper_cifar10_views,
    paper_digit_views,
    paper_public_views,
)

RecipeName = Literal["default", "paper-mnist", "paper-emnist", "paper-cifar10", "paper-celeba"]

Crops = Literal["never", "starving", "always"]
Layouts = Literal["never", "filled", "always"]


@dataclass(frozen=True)
class PatchScale:
    """A published patch discriminator: side, stride and padding in pixels, layers and their channels."""

    patch_size: int
    stride: int
    padding: int
    width: int
    level_count: int = 3
    normalises: bool = True


@dataclass(frozen=True)
class ClassPatchScale:
    """A patch discriminator that knows the class: patches of 18 pixels, one every 4 pixels."""

    width: int = 64
    sees_coordinates: bool = True


@dataclass(frozen=True)
class PublicWeights:
    """How public images are weighed for each class by the target's word (`public_prior.public_weights`)."""

    sharpness: float = 3.0
    """How much more a sure answer weighs than an unsure one."""
    entropy_weight: float = 0.01
    """How dear evenness of the weights is, beside agreement with the target's batch norms."""
    crops: Crops = "starving"
    """When random crops stand beside the public images; `starving`: if most classes draw from a handful."""
    crop_count: int = 20_000
    """Crops of a generation, at most 20 for each image."""

    def __post_init__(self) -> None:
        _refuse_unfit(self)


_BOUNDS: dict[str, tuple[Callable[[float], bool], str]] = {
    "1 or more": (
        lambda value: 1 <= value < math.inf,
        "step_count generator_width generator_levels code_count diversity_pooling student_width "
        "student_interval candidate_factor layout_size crop_count",
    ),
    "2 or more, for batch norm": (lambda value: value >= 2, "batch_size"),
    "0 or more": (
        lambda value: 0 <= value < math.inf,
        "attack_weight prior_weight batch_norm_weight diversity_weight diversity_share student_weight "
        "student_warm_up code_weight layout_weight layout_tolerance sharpness",
    ),
    "more than 0": (lambda value: 0 < value < math.inf, "learning_rate entropy_weight"),
    "a share from 0 to 1": (lambda value: 0 <= value <= 1, "decay_share prior_share smoothing"),
    "0 or more, and less than 1": (lambda value: 0 <= value < 1, "average_decay"),
}
"""What to give, what fits, and the fields that it is said of; NaN fits none."""


def _refuse_unfit(settings: "Recipe | PublicWeights") -> None:
    """Refuse the first number that is out of its bounds."""
    for wanted, (fits, names) in _BOUNDS.items():
        for name in names.split():
            value = vars(settings).get(name)
            if value is not None and not fits(value):
                raise ValueError(f"{name} is {value:g}: give {wanted}")


@dataclass(frozen=True)
class Recipe:
    """Everything that defines one form of the attack."""

    name: str
    scales: tuple[PatchScale | ClassPatchScale, ...]
    """One patch discriminator each; their losses are averaged."""
    views: Callable[[int], Views]
    """The random transformation block for images of a given side."""
    public_views: Callable[[int], nn.Module] | None
    """How public images are varied before the discriminator sees them."""
    is_conditional: bool
    """One generator for all classes, or one for each class."""
    generator_width: int
    generator_levels: int
    """Doublings of the generator of one class; the conditional one finds its own."""
    step_count: int | None
    """Steps of a generator; `None`: `epoch_count` passes over the public images."""
    epoch_count: int
    batch_size: int
    learning_rate: float
    decay_share: float
    """Share of the steps, at the end, over which the learning rate falls to 5 %."""
    attack_weight: float
    """λ, the weight of the target's word."""
    smoothing: float
    """s: the discriminators are told that a public patch is real with 1 - s."""
    reduction: PatchReduction = "mean_logit"
    identity_loss: IdentityLoss = "cross_entropy"
    prior_weight: float = 1.0
    """Weight of the patch prior's word."""
    batch_norm_weight: float = 0.0
    diversity_weight: float = 0.0
    diversity_share: float = 0.7
    """Distance of two images of a class at which they differ enough, as a share of two public images'."""
    diversity_pooling: int = 2
    layouts: Layouts = "never"
    """When pictures get the layout of a public image of their class; `filled`: if those fill their frames."""
    layout_weight: float = 20.0
    """Weight of keeping to a layout that was given."""
    layout_size: int = 4
    """Cells a side of a layout."""
    layout_tolerance: float = 0.15
    """By how much a cell may differ for nothing, of pixels in [-1, 1]."""
    public_weights: PublicWeights | None = None
    """How a class draws its public images; `None`: all alike."""
    prior_share: float = 0.0
    """Share of the steps, the first ones, in which the patch prior alone has a word."""
    average_decay: float = 0.0
    """What a step leaves of the average of the generator's weights, which draws; 0: the last weights draw."""
    students: tuple[str, ...] = ()
    """Architectures of the target's students; () is none."""
    student_width: int = 12
    student_weight: float = 6.0
    """Weight of the students' word beside the target's."""
    student_warm_up: int = 150
    """Batches of public images that the students learn from before the first step."""
    student_interval: int = 1
    """Steps from one lesson to the next, half of it public images, half the generator's."""
    candidate_factor: float = 1.0
    """Images drawn in the end for each that is kept, by the word of target and students."""
    code_count: int = 1
    """Values of the InfoGAN code; 1 is none."""
    code_weight: float = 0.3

    def __post_init__(self) -> None:
        _refuse_unfit(self)
        if self.step_count is None and self.epoch_count < 1:
            raise ValueError(f"epoch_count is {self.epoch_count}: give 1 or more, or a step_count")

    def steps_on(self, public_count: int) -> int:
        """Steps of a generator: `step_count`, or `epoch_count` passes over so many public images."""
        return self.step_count or self.epoch_count * math.ceil(public_count / self.batch_size)


def _paper(
    name: str,
    scale: PatchScale,
    views: Callable[[int], Views],
    *,
    attack_weight: float,
    smoothing: float,
    **rest: object,
) -> Recipe:
    """What the published recipes share: Adam 1e-3, batches of 64, 30 epochs, one generator a class."""
    common: dict[str, object] = {
        "public_views": None,
        "is_conditional": False,
        "generator_width": 64,
        "generator_levels": 3,
        "step_count": None,
        "epoch_count": 30,
        "batch_size": 64,
        "learning_rate": 1e-3,
        "decay_share": 0.0,
    }
    settings = common | rest
    return Recipe(name, (scale,), views, attack_weight=attack_weight, smoothing=smoothing, **settings)  # pyright: ignore[reportArgumentType]


def _default_views(image_size: int) -> Views:
    del image_size
    return affine_views(degrees=20.0, draw_count=2)


RECIPES = {
    "default": Recipe(
        name="default",
        scales=(ClassPatchScale(),),
        views=_default_views,
        public_views=None,
        is_conditional=True,
        generator_width=32,
        generator_levels=3,
        step_count=600,
        epoch_count=0,
        batch_size=64,
        learning_rate=1e-3,
        decay_share=0.3,
        attack_weight=1.5,
        smoothing=0.1,
        batch_norm_weight=50.0,
        diversity_weight=20.0,
        prior_weight=6.0,
        reduction="per_patch",
        public_weights=PublicWeights(),
        prior_share=0.5,
        average_decay=0.98,
        candidate_factor=1.5,
        students=("vgg6", "lenet"),
        layouts="filled",
    ),
    "paper-mnist": _paper(
        "paper-mnist",
        PatchScale(patch_size=6, stride=2, padding=2, width=256),
        paper_digit_views,
        attack_weight=30.0,
        smoothing=0.6,
        public_views=paper_public_views,
    ),
    "paper-emnist": _paper(
        "paper-emnist",
        PatchScale(patch_size=8, stride=4, padding=0, width=256),
        paper_digit_views,
        attack_weight=30.0,
        smoothing=0.6,
        public_views=paper_public_views,
        code_count=2,
    ),
    "paper-cifar10": _paper(
        "paper-cifar10",
        PatchScale(patch_size=8, stride=4, padding=0, width=512),
        paper_cifar10_views,
        attack_weight=50.0,
        smoothing=0.7,
        epoch_count=50,
    ),
    "paper-celeba": _paper(
        "paper-celeba",
        PatchScale(patch_size=24, stride=13, padding=13, width=1536, level_count=4),
        paper_celeba_views,
        attack_weight=1.0,
        smoothing=0.9999,
        generator_levels=5,
        batch_size=16,
    ),
}
"""Every recipe by name. Sources: the published code's run scripts; ours: docs/experiments.md."""
