"""General MI: make images, pixel by pixel, that the classifier takes for each class, and ask nothing else.

After M. Fredrikson, S. Jha, T. Ristenpart, "Model Inversion Attacks that Exploit Confidence Information and
Basic Countermeasures", CCS 2015, algorithm 1 (MI-Face), in the form in which J. Jang, H. Lyu, C. Yang compare
with it (arXiv 2312.07040): without any prior.

Differs from the paper: as in that comparison, Adam on a = tanh⁻¹(x) from noise instead of plain steps from a
black image, for a fixed number of steps, and no denoising between them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.base import AbstractAttack, Task, descend
from patchmi.attacks.identity import IdentityTerm, TargetsWord
from patchmi.attacks.search import refuse_public_terms, search_in_batches
from patchmi.target import WhiteBox
from patchmi.types import Images, Labels, Reconstructions

STEP_COUNT = 200
BATCH_SIZE = 1000
"""Images that are searched together: those of one class, as published."""
BETAS = (0.1, 0.1)
"""Adam's, as published: it hardly remembers."""
MILESTONES = (0.5, 0.75)
"""Shares of the steps after which the learning rate falls to a tenth."""


@dataclass(frozen=True)
class GeneralMI(AbstractAttack):
    """The attack and its settings, the published ones by default.

    Args:
        step_count: Steps of each image, instead of the published 200.
        learning_rate: Adam's, at first.
        identity: How an image is told its class; without public images it has neither students nor features.
        uses_target: Off: the noise that it starts from, an audit's control.
        precision: Number format of the target.
    """

    uses_public: ClassVar[bool] = False

    step_count: int | None = None
    learning_rate: float = 3e-2
    identity: IdentityTerm = field(default_factory=IdentityTerm)
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if self.step_count is not None and self.step_count < 1:
            raise ValueError(f"step_count is {self.step_count}: give 1 or more, or None for the published")
        if self.learning_rate <= 0:
            raise ValueError(f"learning_rate is {self.learning_rate}: give more than 0")
        refuse_public_terms(self.identity, attack="General MI")

    def without_target(self) -> "GeneralMI":
        """Noise."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of a batch."""
        del public_count, image_size
        return {"step_count": self.step_count or STEP_COUNT}

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        del public  # it has no prior
        return search_in_batches(
            lambda labels: _Search(self, door, labels),
            door,
            task,
            batch_size=BATCH_SIZE,
            step_count=(self.step_count or STEP_COUNT) if self.uses_target else 0,
            description=task.title("General MI", uses_target=self.uses_target),
        )


class _Search:
    """A batch of images x = tanh(a), a ~ N(0, 1) at first."""

    def __init__(self, attack: GeneralMI, door: WhiteBox, labels: Labels) -> None:
        self.attack, self.labels = attack, labels
        self.word = TargetsWord(attack.identity, door)
        noise = torch.randn(len(labels), *door.image_shape)
        self.variables: Float[Tensor, "n channels height width"] = noise.to(machine.device()).requires_grad_()
        self.optimiser = torch.optim.Adam([self.variables], attack.learning_rate, betas=BETAS)

    def advance(self, share_done: float) -> Mapping[str, losses.Scalar]:
        fall = 0.1 ** sum(share_done >= milestone for milestone in MILESTONES)
        self.optimiser.param_groups[0]["lr"] = self.attack.learning_rate * fall
        with machine.mixed_precision(self.attack.precision):
            loss = self.word.loss(self.images(), self.labels)
        descend(self.optimiser, loss)
        return {"attack": loss}

    def images(self) -> Images:
        return (torch.tanh(self.variables) + 1) / 2

    def state(self) -> dict[str, Any]:
        return {"variables": self.variables.detach(), "optimiser": self.optimiser.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.variables.copy_(state["variables"])
        self.optimiser.load_state_dict(state["optimiser"])
