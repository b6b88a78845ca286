"""The shapes and ranges that every room of the house agrees on.

Images at every boundary are float, N×C×H×W, range [0, 1]; networks normalise inside.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float, Int, UInt8
from torch import Tensor

Images = Float[Tensor, "n channels height width"]
"""A batch of images with pixels in [0, 1]."""

Bytes = UInt8[Tensor, "n channels height width"]
"""A batch of images as it stands in files: 8 bits a channel, 0 to 255."""

Labels = Int[Tensor, " n"]
"""Class indices, 0 to class count - 1."""

Labelled = tuple[Float[Tensor, "labelled _ _ _"], Int[Tensor, " labelled"]]
"""Images in [0, 1] and their classes, beside others of which there may be more, or larger ones."""

Logits = Float[Tensor, "n classes"]
"""Unnormalised class scores."""

Scores = Float[Tensor, "n classes"]
"""Class probabilities as a target answers them; every row sums to 1 unless the target shows less."""

PatchLogits = Float[Tensor, "n 1 rows columns"]
"""Log-odds of being public, one for each patch of an image, on the grid of patches."""

Features = Float[Tensor, "n features"]
"""Penultimate activations of a classifier."""

Latents = Float[Tensor, "n latent"]
"""Draws from N(0, I), the generator's source of variety."""

PixelType = Literal["uint8", "float32"]
"""What numbers a model at an address takes."""

Access = Literal["white-box", "score", "label"]
"""What an attacker sees of the target: everything, the class scores, or the top label alone."""


Progress = Callable[[Iterable[int], str], Iterable[int]]
"""Wraps the step numbers of a loop with a description, to show how far it is."""


def silent(steps: Iterable[int], description: str) -> Iterable[int]:
    """The progress that shows nothing."""
    del description
    return steps


Observer = Callable[[int, Mapping[str, float]], None]
"""Is told the losses of a step, by name, now and then while an attack runs."""


def unobserved(step: int, losses: Mapping[str, float]) -> None:
    """The observer that takes no notice; who passes it spends no time on losses."""
    del step, losses


@dataclass(frozen=True)
class Snapshot:
    """What a running attack would answer at `step`: the same latents for every class, at every step."""

    step: int
    seconds: float
    """Seconds of attack that had passed."""
    images: Images
    labels: Labels
    queries: int = 0
    """Images that a black box had been sent by then."""


@dataclass(frozen=True)
class Reconstructions:
    """An attack's output: images with the class each is meant to show, and how they came about."""

    images: Images
    labels: Labels
    seeds: Labels
    """The attack's seed behind each image."""
    snapshots: tuple[Snapshot, ...] = ()
    notes: tuple[str, ...] = ()
    """What the attack could not do as described, in sentences for the report."""
    unselected: Images | None = None
    """As many of the same labels and seeds that nobody chose, where the images were chosen among several."""
