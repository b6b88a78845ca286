"""Which public images speak for which class, by the target's own word and its memory.

Bayes' rule asks for p(x|y) ∝ p(y|x)·p(x). The target gives p(y|x). Public images are not drawn from the
private p(x); but the target's batch norms remember moments of the images it was trained on, and of all
distributions over the public images with these moments the one of most entropy is taken for p(x). A class
then draws its public images by q(x|y) ∝ p(y|x)^g·p(x).

Pseudo-labels of public images guide a class-conditional discriminator in X. Yuan et al., "Pseudo Label-Guided
Model Inversion Attack via Conditional Generative Adversarial Network", AAAI 2023.

Differs from the paper: weights instead of the n best images of each class, asked under random views, and the
tilt by the target's batch-norm statistics, which is ours. So are the crops: of whole letters a handful speak
for a digit, and a class that draws the same few images again and again starves; of their parts hundreds do.
They are bred: of what a class draws two are crossed and varied, and weighed anew. So evolution strategies do,
and particle filters without the crossing (N. Gordon et al., IEE Proceedings F, 1993) which also weigh for how
a particle came about; here nothing does.
"""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import descend
from patchmi.attacks.surrogate import Surrogate
from patchmi.losses import Moments, batch_norm_loss
from patchmi.target import WhiteBox
from patchmi.types import Images, Progress, silent
from patchmi.views import Views, random_children, random_parts

TILT_STEPS = 400
CLASS_BALANCE = 0.3
"""Weight of even class shares in the tilt."""
LOOK_COUNT = 20_000
"""Public images that the target is asked about; of more, as many at random."""
BATCH_SIZE = 256

Weights = Float[Tensor, "classes n"]
"""Probability with which a class draws each public image; every row sums to 1."""
Parents = Int[Tensor, "crops 2"]
"""Places of two public images for each crop that is to be bred of them."""


class Answers(NamedTuple):
    """What a target says of images, and what it sees in them."""

    probabilities: Float[Tensor, "n classes"]
    """Of each class, the mean over an image's views."""
    layers: list[Moments]
    """One a batch-norm layer: mean and variance over each image's own positions, n×channels."""

    def and_of(self, others: "Answers") -> "Answers":
        """What it says of these images and others, in this order."""
        layers = [
            one._replace(
                batch_mean=torch.cat([one.batch_mean, other.batch_mean]),
                batch_variance=torch.cat([one.batch_variance, other.batch_variance]),
            )
            for one, other in zip(self.layers, others.layers, strict=True)
        ]
        return Answers(torch.cat([self.probabilities, others.probabilities]), layers)


def some_of(public: Images, *, seed: int) -> Float[Tensor, "some channels height width"]:
    """At most `LOOK_COUNT` public images, chosen at random once for a seed."""
    if len(public) <= LOOK_COUNT:
        return public
    with machine.seeded(seed):
        return public[torch.randperm(len(public))[:LOOK_COUNT].sort().values.to(public.device)]


def parents_of(weights: Weights, *, count: int, seed: int) -> Parents:
    """Two public images for each crop, both as one class draws them, and every class as often as another."""
    with machine.seeded(seed):
        labels = torch.arange(count) % len(weights)
        parents = torch.empty(count, 2, dtype=torch.long)
        for label, shares in enumerate(weights):
            own = labels == label
            parents[own] = torch.multinomial(shares, 2 * int(own.sum()), replacement=True).unflatten(
                0, (-1, 2)
            )
    return parents


def crops_of(
    public: Float[Tensor, "n channels height width"],
    *,
    parents: Parents | None,
    count: int,
    seed: int,
    progress: Progress = silent,
) -> Float[Tensor, "crops channels height width"]:
    """Random parts of random public images (`views.random_parts`), or children of parents; the seed decides.

    Torch's global random state goes on as if nothing had been drawn.

    Args:
        public: Images in [0, 1].
        parents: Whose children to draw (`views.random_children`); None: parts of any.
        count: How many there are to be.
        seed: Of the draw.
        progress: How to show how far it is.
    """
    # Not in bfloat16, whatever the networks run in: angles and shifts would be rounded.
    with machine.seeded(seed), torch.autocast(public.device.type, enabled=False):
        chosen = torch.randint(len(public), (count, 1)) if parents is None else parents
        vary = random_parts if parents is None else random_children
        # A thousand at a time: kornia holds several copies of what it turns.
        parts = chosen.split(1000)
        return torch.cat(
            [
                vary(*(public[one.to(public.device)] for one in parts[part].T))
                for part in progress(range(len(parts)), "Crops of the public images are made")
            ]
        )


def ask(
    door: WhiteBox | Surrogate, images: Images, *, views: Views, progress: Progress, description: str
) -> Answers:
    """Show the target images in [0, 1] as they are and in all their views.

    Args:
        door: Access to the target.
        images: What it is asked about.
        views: An image must count as its class in all of them.
        progress: How to show how far it is.
        description: What the progress calls it.
    """
    # Filled in place: many small tensors kept between large ones that go would leave the heap in holes.
    probabilities = torch.empty(len(images), door.class_count, device=images.device)
    layers: list[Moments] = []
    for start in progress(range(0, len(images), BATCH_SIZE), description):
        batch = images[start : start + BATCH_SIZE]
        with torch.no_grad():
            logits, of_images = door.logits_and_image_moments(batch)
            shown = [logits] + [door.logits(views.vary(batch)) for _ in range(views.draw_count)]
        part = slice(start, start + len(batch))
        probabilities[part] = torch.stack([one.float().softmax(dim=1) for one in shown]).mean(dim=0)
        layers = layers or [_room_for(len(images), layer) for layer in of_images]
        for layer, seen in zip(layers, of_images, strict=True):
            layer.batch_mean[part], layer.batch_variance[part] = seen.batch_mean, seen.batch_variance
    return Answers(probabilities, layers)


def public_weights(
    answers: Answers, *, sharpness: float, entropy_weight: float, progress: Progress = silent
) -> Weights:
    """Weigh public images for each class by what the target says of them.

    Args:
        answers: What it says.
        sharpness: g: how much more a sure answer weighs than an unsure one.
        entropy_weight: How dear evenness of the weights is, beside agreement of the moments.
        progress: How to show how far it is.

    Returns:
        On the CPU, where batches are drawn.
    """
    tilted = tilt(answers.probabilities, answers.layers, entropy_weight=entropy_weight, progress=progress)
    # By logarithms: a class that the target gives to nothing would have weights of 0/0.
    tiny = torch.finfo(torch.float32).tiny
    log_shares = sharpness * answers.probabilities.T.clamp_min(tiny).log() + tilted.clamp_min(tiny).log()
    return log_shares.softmax(dim=1).cpu()


def effective_counts(weights: Weights) -> Float[Tensor, " classes"]:
    """1/Σw²: about as many images as each class in fact draws from (L. Kish, "Survey Sampling", 1965)."""
    return 1 / weights.square().sum(dim=1)


def tilt(
    probabilities: Float[Tensor, "n classes"],
    layers: list[Moments],
    *,
    entropy_weight: float,
    progress: Progress = silent,
) -> Float[Tensor, " n"]:
    """Weights of images under which their moments are those that the target remembers.

    Minimises the batch-norm distance of the weighted images + entropy_weight · KL(weights ‖ uniform) +
    KL(weighted class shares ‖ uniform), by Adam on the logits of the weights. Without batch norm all images
    weigh the same but for the balance of classes.

    Args:
        probabilities: The target's answers.
        layers: One a batch-norm layer: mean and variance over each image's own positions, n×channels.
        entropy_weight: Large: even weights; small: moments agree at the cost of using few images.
        progress: How to show how far it is.
    """
    logits = torch.zeros(len(probabilities), device=probabilities.device, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    squares = _mean_squares(layers) if layers else None
    # In bfloat16 the moments would be summed in steps of a hundredth.
    with torch.enable_grad(), torch.autocast(probabilities.device.type, enabled=False):
        for _ in progress(range(TILT_STEPS), "Public images are weighed"):
            weights = logits.softmax(dim=0)
            loss = entropy_weight * _divergence_from_uniform(weights)
            loss = loss + CLASS_BALANCE * _divergence_from_uniform(weights @ probabilities)
            if squares is not None:
                loss = loss + batch_norm_loss(_mixture(layers, squares, weights))
            descend(optimiser, loss)
    return logits.softmax(dim=0).detach()


def _room_for(count: int, layer: Moments) -> Moments:
    """A layer's moments for so many images, to be filled."""
    room = layer.batch_mean.new_empty(count, layer.batch_mean.shape[1])
    return layer._replace(batch_mean=room, batch_variance=torch.empty_like(room))


def _mean_squares(layers: list[Moments]) -> Float[Tensor, "n channels"]:
    """Each image's mean squares, of all layers' channels side by side: for one product."""
    squares = torch.cat([layer.batch_variance for layer in layers], dim=1)
    for layer, part in zip(layers, squares.split(_channel_counts(layers), dim=1), strict=True):
        part.addcmul_(layer.batch_mean, layer.batch_mean)
    return squares


def _mixture(
    layers: list[Moments], squares: Float[Tensor, "n channels"], weights: Float[Tensor, " n"]
) -> list[Moments]:
    """Each layer's moments of the weighted images together, of each image's means and mean squares."""
    # Means are not laid side by side: they stand in `layers` already, and take gigabytes for a deep target.
    mean = torch.cat([weights @ layer.batch_mean for layer in layers])
    variance = (weights @ squares - mean.square()).clamp_min(0)
    counts = _channel_counts(layers)
    return [
        layer._replace(batch_mean=of_mean, batch_variance=of_variance)
        for layer, of_mean, of_variance in zip(
            layers, mean.split(counts), variance.split(counts), strict=True
        )
    ]


def _channel_counts(layers: list[Moments]) -> list[int]:
    return [len(layer.running_mean) for layer in layers]


def _divergence_from_uniform(shares: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """KL(shares ‖ uniform)."""
    shares = shares.clamp_min(torch.finfo(shares.dtype).tiny)  # the logarithm of 0 has no gradient
    return (shares * (shares * len(shares)).log()).sum()
