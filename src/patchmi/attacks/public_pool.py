"""The public images as the classes draw them: whole ones, and crops of them where these are too few."""

from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.patch_mi_recipes import PublicWeights
from patchmi.attacks.public_prior import (
    Parents,
    Weights,
    ask,
    crops_of,
    effective_counts,
    parents_of,
    public_weights,
    some_of,
)
from patchmi.attacks.surrogate import Surrogate
from patchmi.target import WhiteBox
from patchmi.types import Images, Progress, silent
from patchmi.views import Views

CROPS_OF_EACH = 20
"""Crops of a generation for each whole image, at most."""
GENERATION_COUNT = 2
"""First crops of any image, then children of those that the classes draw."""
STARVING_COUNT = 50
"""Images that a class draws from in effect, in the median over classes, below which crops are wanted."""

BLANK_BELOW = 0.05
"""Difference of a cell's pixels, in [0, 1], below which they are alike; scanned paper may differ more."""
SEEN_AT_ONCE = 2048
"""Public images whose layouts are looked at at a time, or memory would grow with their number."""


class PublicPool:
    """The public images of one attack, and how each class draws them.

    Args:
        public: What the attacker has, in [0, 1].
        weighing: How they are weighed; None: every class draws all alike.
        seed: Of what is chosen among them, and of the crops.
    """

    def __init__(self, public: Images, weighing: PublicWeights | None, *, seed: int) -> None:
        self.weighing, self.seed = weighing, seed
        self.images = (public if weighing is None else some_of(public, seed=seed)).to(machine.device())
        self.whole_count = len(self.images)
        self.weights: Weights | None = None
        self._parents: list[Parents | None] = []

    @property
    def has_crops(self) -> bool:
        """Whether crops stand beside the whole images."""
        return bool(self._parents)

    def look(self, door: WhiteBox | Surrogate, views: Views, progress: Progress) -> None:
        """Weigh the images for each class by the target's word.

        Where most classes would draw from a handful of them, random crops of them are looked at too, and then
        in their place children of the crops and images that the classes draw.
        """
        if self.weighing is None:
            return
        self.images, self._parents = self.images[: self.whole_count], []
        look = partial(ask, door, views=views, progress=progress)
        weigh = partial(
            public_weights,
            sharpness=self.weighing.sharpness,
            entropy_weight=self.weighing.entropy_weight,
            progress=progress,
        )
        answers = look(self.images, description="The target looks at the public images")
        self.weights = weigh(answers)
        if not self._wants_crops(self.weights):
            return
        parents = None
        for generation in range(1, GENERATION_COUNT + 1):
            crops = self._breed(parents, progress)
            description = f"The target looks at crops of them, {generation} of {GENERATION_COUNT}"
            self.weights = weigh(answers.and_of(look(crops, description=description)))
            parents = parents_of(self.weights, count=self._crop_count, seed=self.seed)

    def draw(self, labels: Int[Tensor, " batch"]) -> Float[Tensor, "batch channels height width"]:
        """Draw one image for each label, as its class does."""
        if self.weights is None:
            return self.draw_any(len(labels))
        labels = labels.cpu()
        index = torch.empty_like(labels)
        # Label by label: for one image of each row, torch would draw a number for every public image.
        for label in labels.unique():
            own = labels == label
            index[own] = torch.multinomial(self.weights[label], int(own.sum()), replacement=True)
        return self.images[index.to(self.images.device)]

    def draw_any(self, count: int) -> Float[Tensor, "count channels height width"]:
        """Draw so many images, all alike."""
        return self.images[torch.randint(len(self.images), (count,)).to(self.images.device)]

    def state(self) -> dict[str, Any]:
        """What must be kept to go on: of the crops only who their parents were."""
        return {"parents": self._parents, "weights": self.weights}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        for parents in state["parents"]:
            self._breed(parents, silent)
        self.weights = state["weights"]

    def _wants_crops(self, weights: Weights) -> bool:
        assert self.weighing is not None
        is_starving = bool(effective_counts(weights).median() < STARVING_COUNT)
        return self.weighing.crops == "always" or (self.weighing.crops == "starving" and is_starving)

    @property
    def _crop_count(self) -> int:
        """Crops of a generation: of a few images many would show little new."""
        assert self.weighing is not None
        return min(self.weighing.crop_count, CROPS_OF_EACH * self.whole_count)

    def _breed(
        self, parents: Parents | None, progress: Progress
    ) -> Float[Tensor, "crops channels height width"]:
        """Put new crops in the place of those there are, beside the whole images."""
        self._parents.append(parents)
        crops = crops_of(
            self.images, parents=parents, count=self._crop_count, seed=self.seed, progress=progress
        )
        self.images = torch.cat([self.images[: self.whole_count], crops])
        return crops


def blank_share(public: Images, *, side: int) -> float:
    """Share of a grid's `side` × `side` cells in which nothing stands: all their pixels are alike.

    Of many public images as many as an attack looks at, the same whatever its seed. Cells of a single pixel
    are all blank.
    """
    parts = some_of(public, seed=0).split(SEEN_AT_ONCE)
    ranges = torch.cat([losses.cell_ranges(part, side=side) for part in parts])
    return float((ranges < BLANK_BELOW).float().mean())
