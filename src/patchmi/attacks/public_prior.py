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
"""

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import descend
from patchmi.losses import Moments, batch_norm_loss
from patchmi.target import WhiteBox
from patchmi.types import Images, Progress
from patchmi.views import Views, part_views

TILT_STEPS = 400
CLASS_BALANCE = 0.3
"""Weight of even class shares in the tilt."""
LOOK_COUNT = 20_000
"""Public images that are looked at; of more, as many at random, and the others weigh nothing."""
BATCH_SIZE = 256

Weights = Float[Tensor, "classes n"]
"""Probability with which a class draws each public image; every row sums to 1."""


def with_crops(public: Images, *, count: int, seed: int) -> Float[Tensor, "count channels height width"]:
    """Public images, and random crops of them until there are `count`; all of them if they are more.

    Torch's global random state goes on as if nothing had been drawn.

    Args:
        public: What the attacker has, in [0, 1].
        count: Images and crops together.
        seed: Of the crops.
    """
    crop_count = count - len(public)
    if crop_count <= 0:
        return public
    with machine.seeded(seed):
        chosen = torch.randint(len(public), (crop_count,))
        return torch.cat([public, part_views()(public[chosen])])


def public_weights(
    door: WhiteBox,
    public: Images,
    *,
    views: Views,
    sharpness: float,
    entropy_weight: float,
    progress: Progress,
) -> Weights:
    """Ask the target about every public image, and weigh them for each class.

    Args:
        door: Access to the target.
        public: What the attacker has, in [0, 1].
        views: An image must count as its class in all its views.
        sharpness: g: how much more a sure answer weighs than an unsure one.
        entropy_weight: How dear evenness of the weights is, beside agreement of the moments.
        progress: How to show how far it is.

    Returns:
        On the CPU, where batches are drawn.
    """
    public_count = len(public)
    looked_at = torch.arange(public_count)
    if public_count > LOOK_COUNT:
        looked_at = torch.randperm(public_count)[:LOOK_COUNT].sort().values
        public = public[looked_at.to(public.device)]
    # Filled in place: many small tensors kept between large ones that go would leave the heap in holes.
    probabilities = torch.empty(len(public), door.class_count, device=public.device)
    layers: list[Moments] = []
    starts = range(0, len(public), BATCH_SIZE)
    for start in progress(starts, "The target looks at the public images"):
        images = public[start : start + BATCH_SIZE]
        with torch.no_grad():
            logits, of_images = door.logits_and_image_moments(images)
            shown = [logits] + [door.logits(views.vary(images)) for _ in range(views.draw_count)]
        part = slice(start, start + len(images))
        probabilities[part] = torch.stack([one.float().softmax(dim=1) for one in shown]).mean(dim=0)
        layers = layers or [_room_for(len(public), layer) for layer in of_images]
        for layer, seen in zip(layers, of_images, strict=True):
            layer.batch_mean[part], layer.batch_variance[part] = seen.batch_mean, seen.batch_variance
    tilted = tilt(probabilities, layers, entropy_weight=entropy_weight)
    # By logarithms: a class that the target gives to nothing would have weights of 0/0.
    tiny = torch.finfo(torch.float32).tiny
    log_shares = sharpness * probabilities.T.clamp_min(tiny).log() + tilted.clamp_min(tiny).log()
    weights = torch.zeros(door.class_count, public_count)
    weights[:, looked_at] = log_shares.softmax(dim=1).cpu()
    return weights


def tilt(
    probabilities: Float[Tensor, "n classes"], layers: list[Moments], *, entropy_weight: float
) -> Float[Tensor, " n"]:
    """Weights of images under which their moments are those that the target remembers.

    Minimises the batch-norm distance of the weighted images + entropy_weight · KL(weights ‖ uniform) +
    KL(weighted class shares ‖ uniform), by Adam on the logits of the weights. Without batch norm all images
    weigh the same but for the balance of classes.

    Args:
        probabilities: The target's answers.
        layers: One a batch-norm layer: mean and variance over each image's own positions, n×channels.
        entropy_weight: Large: even weights; small: moments agree at the cost of using few images.
    """
    logits = torch.zeros(len(probabilities), device=probabilities.device, requires_grad=True)
    optimiser = torch.optim.Adam([logits], lr=0.05)
    # In bfloat16 the moments would be summed in steps of a hundredth.
    with torch.enable_grad(), torch.autocast(probabilities.device.type, enabled=False):
        for _ in range(TILT_STEPS):
            weights = logits.softmax(dim=0)
            loss = entropy_weight * _divergence_from_uniform(weights)
            loss = loss + CLASS_BALANCE * _divergence_from_uniform(weights @ probabilities)
            if layers:
                loss = loss + batch_norm_loss([_mixture(layer, weights) for layer in layers])
            descend(optimiser, loss)
    return logits.softmax(dim=0).detach()


def _room_for(count: int, layer: Moments) -> Moments:
    """A layer's moments for so many images, to be filled."""
    room = layer.batch_mean.new_empty(count, layer.batch_mean.shape[1])
    return layer._replace(batch_mean=room, batch_variance=torch.empty_like(room))


def _mixture(layer: Moments, weights: Float[Tensor, " n"]) -> Moments:
    """Moments of the weighted images together: the variance within images and between their means."""
    mean = weights @ layer.batch_mean
    square = weights @ (layer.batch_variance + layer.batch_mean.square())
    return layer._replace(batch_mean=mean, batch_variance=(square - mean.square()).clamp_min(0))


def _divergence_from_uniform(shares: Float[Tensor, " n"]) -> Float[Tensor, ""]:
    """KL(shares ‖ uniform)."""
    shares = shares.clamp_min(torch.finfo(shares.dtype).tiny)  # the logarithm of 0 has no gradient
    return (shares * (shares * len(shares)).log()).sum()
