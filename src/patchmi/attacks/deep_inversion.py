"""DeepInversion: make images, pixel by pixel, whose statistics are those that the classifier remembers.

H. Yin et al., "Dreaming to Distill: Data-free Knowledge Transfer via DeepInversion", CVPR 2020, equations 2
to 4, by its recipe for CIFAR-10. Without an image of any kind, it minimises

    CE(T(x̂), y) + α_f·Σ_l (‖μ_l-μ̂_l‖₂ + ‖σ²_l-σ̂²_l‖₂) + α_tv·TV(x̂) + α_2·‖x̂‖₂,

x̂ a batch of images, rolled a little in every step, μ_l and σ²_l the moments that it has in batch norm l, and
μ̂_l and σ̂²_l those that the layer remembers.

Differs from the paper: pixels are normalised by one mean and deviation for all channels, and clipped to what
an image can hold after every step, which there is done at ImageNet's size only; the batch kept is that of
least loss, where the published code's last one takes its place; batches hold every class as often.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.base import AbstractAttack, Task, descend
from patchmi.attacks.identity import IdentityTerm
from patchmi.attacks.search import refuse_public_terms, search_in_batches
from patchmi.target import WhiteBox
from patchmi.types import Images, Labels, Reconstructions

STEP_COUNT = 2000
JITTER = 2
"""Pixels by which a batch is rolled at most, each way."""
MEAN, DEVIATION = 0.5, 0.25
"""Of pixels in [0, 1] to the scale of the search, which is about that of normalised photographs."""


@dataclass(frozen=True)
class DeepInversion(AbstractAttack):
    """The attack and its settings, the published ones by default.

    Args:
        step_count: Steps of each batch, instead of the published 2,000.
        learning_rate: Adam's.
        batch_size: Images that are searched together, whose moments are matched.
        batch_norm_weight: α_f; the paper's own, the published script's default being 100.
        total_variation_weight: α_tv.
        norm_weight: α_2.
        flips: Whether batches are mirrored in half of the steps, as for photographs.
        identity: How an image is told its class; without public images it has neither students nor features.
        uses_target: Off: noise, smoothed by the total variation, an audit's control.
        precision: Number format of the target.
    """

    uses_public: ClassVar[bool] = False

    step_count: int | None = None
    learning_rate: float = 0.1
    batch_size: int = 256
    batch_norm_weight: float = 10.0
    total_variation_weight: float = 2.5e-5
    norm_weight: float = 3e-8
    flips: bool = False
    identity: IdentityTerm = field(default_factory=IdentityTerm)
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if self.step_count is not None and self.step_count < 1:
            raise ValueError(f"step_count is {self.step_count}: give 1 or more, or None for the published")
        if self.learning_rate <= 0 or self.batch_size < 1:
            raise ValueError("learning_rate: give more than 0; batch_size: 1 or more")
        if min(self.batch_norm_weight, self.total_variation_weight, self.norm_weight) < 0:
            raise ValueError("batch_norm_weight, total_variation_weight, norm_weight: give 0 or more")
        refuse_public_terms(self.identity, attack="DeepInversion")

    def without_target(self) -> "DeepInversion":
        """Smoothed noise."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of a batch."""
        del public_count, image_size
        return {"step_count": self.step_count or STEP_COUNT}

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        del public  # all that it knows of images is in the target
        made = search_in_batches(
            lambda labels: _Search(self, door, labels),
            door,
            task,
            batch_size=self.batch_size,
            step_count=self.step_count or STEP_COUNT,
            description=task.title("DeepInversion", uses_target=self.uses_target),
        )
        if self.uses_target and self.batch_norm_weight > 0 and not door.has_batch_norm:
            note = "The target has no batch norm: the attack ran without batch-norm matching."
            made = replace(made, notes=(note,))
        return made


class _Search:
    """A batch of normalised images, N(0, 1) at first, and the best that it has been."""

    def __init__(self, attack: DeepInversion, door: WhiteBox, labels: Labels) -> None:
        self.attack, self.door, self.labels = attack, door, labels
        noise = torch.randn(len(labels), *door.image_shape).to(machine.device())
        self.pixels: Float[Tensor, "n channels height width"] = noise.requires_grad_()
        self.optimiser = torch.optim.Adam([self.pixels], attack.learning_rate)
        self._clip()
        self.best_pixels = self.pixels.detach().clone()
        self.best_loss = torch.tensor(torch.inf, device=machine.device())

    def advance(self, share_done: float) -> Mapping[str, losses.Scalar]:
        del share_done
        terms = self._terms(self._moved())
        weights = {
            "attack": 1.0,
            "batch_norm": self.attack.batch_norm_weight,
            "total_variation": self.attack.total_variation_weight,
            "norm": self.attack.norm_weight,
        }
        loss = torch.stack([weights[name] * term for name, term in terms.items()]).sum()
        with torch.no_grad():
            is_better = loss < self.best_loss
            self.best_pixels = torch.where(is_better, self.pixels, self.best_pixels)
            self.best_loss = torch.where(is_better, loss, self.best_loss)
        descend(self.optimiser, loss)
        self._clip()
        return terms

    def _moved(self) -> Float[Tensor, "n channels height width"]:
        """The batch, rolled by up to `JITTER` pixels each way and perhaps mirrored, all images alike."""
        shift = torch.randint(-JITTER, JITTER + 1, (2,)).tolist()
        moved = self.pixels.roll(shift, dims=(2, 3))
        if self.attack.flips and torch.rand(()) < 0.5:
            moved = moved.flip(3)
        return moved

    def _terms(self, moved: Float[Tensor, "n channels height width"]) -> dict[str, losses.Scalar]:
        terms = {
            "total_variation": losses.total_variation(moved),
            "norm": torch.linalg.vector_norm(moved),
        }
        if self.attack.uses_target:
            with machine.mixed_precision(self.attack.precision):
                logits, moments = self.door.logits_and_moments(
                    moved * DEVIATION + MEAN, wanted=self.attack.batch_norm_weight > 0
                )
            terms["attack"] = losses.IDENTITY_LOSSES[self.attack.identity.loss](logits, self.labels)
            if moments:
                terms["batch_norm"] = losses.batch_norm_distance(moments)
        return terms

    @torch.no_grad()
    def _clip(self) -> None:
        self.pixels.clamp_(-MEAN / DEVIATION, (1 - MEAN) / DEVIATION)

    def images(self) -> Images:
        return self.best_pixels * DEVIATION + MEAN

    def state(self) -> dict[str, Any]:
        return {
            "pixels": self.pixels.detach(),
            "best_pixels": self.best_pixels,
            "best_loss": self.best_loss,
            "optimiser": self.optimiser.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        with torch.no_grad():
            self.pixels.copy_(state["pixels"])
        self.best_pixels = state["best_pixels"].to(machine.device())
        self.best_loss = state["best_loss"].to(machine.device())
        self.optimiser.load_state_dict(state["optimiser"])
