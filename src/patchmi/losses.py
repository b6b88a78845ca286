"""The equations of model inversion, one pure function each.

Patch-MI: J. Jang, H. Lyu, C. Yang, "Patch-MI: Enhancing Model Inversion Attacks via Patch-Based
Reconstruction", arXiv 2312.07040; InfoGAN: X. Chen et al., NeurIPS 2016. `docs/derivation.md` leads from
Bayes' rule to each of them. Images are in [-1, 1] here: the generator's own range.
"""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchmi.types import Features, Images, Labels, Logits, PatchLogits, Scores

PatchReduction = Literal["mean_logit", "per_patch"]
Scalar = Float[Tensor, ""]


class Moments(NamedTuple):
    """First two moments of one batch-norm layer's input: of the batch, and as the layer remembers them.

    Where the moments are those of single images, `batch_mean` and `batch_variance` have one row for each.
    """

    batch_mean: Float[Tensor, "*n channels"]
    batch_variance: Float[Tensor, "*n channels"]
    running_mean: Float[Tensor, " channels"]
    running_variance: Float[Tensor, " channels"]


def patch_cross_entropy(patch_logits: PatchLogits, *, truth: float, reduction: PatchReduction) -> Scalar:
    """Binary cross-entropy of a patch discriminator's log-odds against `truth` (1 real, 0 generated).

    `per_patch` sums the log-likelihoods of independent patches (here: averages them), the factorised prior
    of the paper. `mean_logit` judges the mean log-odds of an image once, as the published code does.
    """
    log_odds = patch_logits.float()
    if reduction == "mean_logit":
        log_odds = log_odds.mean(dim=(1, 2, 3))
    return F.binary_cross_entropy_with_logits(log_odds, torch.full_like(log_odds, truth))


def discriminator_loss(
    *, real: PatchLogits, fake: PatchLogits, smoothing: float, reduction: PatchReduction
) -> Scalar:
    """The discriminator's side of JS(q ‖ p_patch): tell public patches from generated ones.

    Args:
        real: Log-odds of public images.
        fake: Log-odds of generated images.
        smoothing: s in the target 1 - s for real patches (one-sided label smoothing).
        reduction: How an image's patches are judged.
    """
    return patch_cross_entropy(real, truth=1.0 - smoothing, reduction=reduction) + patch_cross_entropy(
        fake, truth=0.0, reduction=reduction
    )


def generator_loss(fake: PatchLogits, *, reduction: PatchReduction) -> Scalar:
    """The generator's side of JS(q ‖ p_patch), non-saturating: pass for public patches."""
    return patch_cross_entropy(fake, truth=1.0, reduction=reduction)


def critic_loss(*, real: Float[Tensor, " n"], fake: Float[Tensor, " n"]) -> Scalar:
    """E[D(x̃)] - E[D(x)]: minus the critic's estimate of the Wasserstein distance.

    I. Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, equation 3 without its
    penalty, which is `gradient_penalty`.
    """
    return fake.float().mean() - real.float().mean()


def critic_prior_loss(scores: Float[Tensor, " n"]) -> Scalar:
    """-E[D(x̃)]: generated images must score with the critic as public ones do.

    The generator's side of the Wasserstein distance, and the prior loss of Y. Zhang et al., "The Secret
    Revealer" (GMI), CVPR 2020.
    """
    return -scores.float().mean()


def gradient_penalty(
    critic: Callable[[Images], Float[Tensor, " n"]],
    *,
    real: Images,
    fake: Images,
    shares: Float[Tensor, " n"],
) -> Scalar:
    """E[(‖∇D(x̂)‖ - 1)²] at x̂ = x + share · (x̃ - x), between pairs of public and generated images.

    I. Gulrajani et al., "Improved Training of Wasserstein GANs", NeurIPS 2017, equation 3 without its weight.

    Args:
        critic: D, which must judge each image of a batch by itself.
        real: Public images in [-1, 1].
        fake: Generated images, as many.
        shares: Where between the two of a pair, 0 to 1.
    """
    between = torch.lerp(real, fake.detach(), shares[:, None, None, None]).requires_grad_(True)
    (slopes,) = torch.autograd.grad(critic(between).sum(), between, create_graph=True)
    return (slopes.flatten(1).norm(dim=1) - 1).square().mean()


def hinge_loss(*, real: Float[Tensor, " n"], fake: Float[Tensor, " m"]) -> Scalar:
    """E[max(0, 1 - D(x))] + E[max(0, 1 + D(x̃))]: the discriminator's side; `critic_prior_loss` is the other.

    T. Miyato et al., "Spectral Normalization for Generative Adversarial Networks", ICLR 2018, equation 16.
    """
    return F.relu(1 - real.float()).mean() + F.relu(1 + fake.float()).mean()


def identity_loss(logits: Logits, labels: Labels) -> Scalar:
    """-E[log T(y | v(x))]: the target must see the class in a view of the image.

    It bounds the mutual information of label and image from below, InfoGAN's equation 5 with the learnt Q
    replaced by the target.
    """
    return F.cross_entropy(logits.float(), labels)


def max_margin_loss(logits: Logits, labels: Labels) -> Scalar:
    """The best other class's logit minus the class's own: it does not flatten where the softmax does.

    X. Yuan et al., "Pseudo Label-Guided Model Inversion Attack" (PLG-MI), AAAI 2023, equation 6.
    """
    logits = logits.float()
    own = logits.gather(1, labels[:, None])[:, 0]
    others = logits.scatter(1, labels[:, None], -torch.inf)
    return (others.max(dim=1).values - own).mean()


def logit_loss(logits: Logits, labels: Labels) -> Scalar:
    """Minus the class's own logit.

    N.-B. Nguyen et al., "Re-thinking Model Inversion Attacks Against Deep Neural Networks" (LOMMA), CVPR
    2023, equation 4 without its regulariser, which is `feature_loss`.
    """
    return -logits.float().gather(1, labels[:, None]).mean()


def feature_loss(features: Features, centre: Float[Tensor, " features"]) -> Scalar:
    """Squared distance of penultimate features from the public images' mean, averaged over features.

    LOMMA's regulariser (its equation 4) as its code has it: the mean instead of a draw around it.
    """
    return (features.float() - centre).square().mean()


IdentityLoss = Literal["cross_entropy", "max_margin", "logit"]

IDENTITY_LOSSES: dict[str, Callable[[Logits, Labels], Scalar]] = {
    "cross_entropy": identity_loss,
    "max_margin": max_margin_loss,
    "logit": logit_loss,
}
"""How an image is told that it is not yet its class, by name."""


def code_loss(code_logits: Logits, codes: Labels) -> Scalar:
    """-E[log Q(c | x)]: InfoGAN's bound for a further code c, with Q learnt (its equation 5)."""
    return F.cross_entropy(code_logits.float(), codes)


def answer_loss(class_logits: Logits, answers: Scores) -> Scalar:
    """-E[Σ_y a_y·log C(y | x)]: a class head C must answer as the target did, a = 1 for its label.

    What the discriminator of a GAN learns of the target in N.-B. Nguyen et al., "Label-Only Model Inversion
    Attacks via Knowledge Transfer" (LOKT), NeurIPS 2023.
    """
    return F.cross_entropy(class_logits.float(), answers)


def batch_norm_loss(moments: Sequence[Moments], *, epsilon: float = 1e-5) -> Scalar:
    """Squared distance of a batch's moments from the target's memory of its training data.

    Mean over channels, then layers, of (μ-μ̂)²/σ̂² + (σ-σ̂)²/σ̂², hats for the running statistics. After
    H. Yin et al., "Dreaming to Distill" (DeepInversion), CVPR 2020, equation 4.

    Differs from the paper: distances are relative to the running variance, so that every layer weighs alike.
    """
    # All layers side by side: a network has many, each with few channels.
    joined = Moments(*(torch.cat(part) for part in zip(*moments, strict=True)))
    running_variance = joined.running_variance + epsilon
    mean_shift = (joined.batch_mean - joined.running_mean).square()
    deviation_shift = ((joined.batch_variance + epsilon).sqrt() - running_variance.sqrt()).square()
    distances = (mean_shift + deviation_shift) / running_variance
    of_layers = distances.split([len(layer.running_mean) for layer in moments])
    return torch.stack([distance.mean() for distance in of_layers]).mean()


def batch_norm_distance(moments: Sequence[Moments]) -> Scalar:
    """Sum over layers of ‖μ-μ̂‖₂ + ‖σ²-σ̂²‖₂, hats for the running statistics: DeepInversion's own distance.

    H. Yin et al., "Dreaming to Distill" (DeepInversion), CVPR 2020, equation 4.
    """
    distances = [
        torch.linalg.vector_norm(layer.batch_mean - layer.running_mean)
        + torch.linalg.vector_norm(layer.batch_variance - layer.running_variance)
        for layer in moments
    ]
    return torch.stack(distances).sum()


def total_variation(images: Images) -> Scalar:
    """Norms of a batch's differences between neighbouring pixels: across, down, and along both diagonals.

    DeepInversion, equation 3, as its code has it: four norms over the whole batch, added.
    """
    images = images.float()
    differences = (
        images[..., :, 1:] - images[..., :, :-1],
        images[..., 1:, :] - images[..., :-1, :],
        images[..., 1:, 1:] - images[..., :-1, :-1],
        images[..., 1:, :-1] - images[..., :-1, 1:],
    )
    return torch.stack([torch.linalg.vector_norm(one) for one in differences]).sum()


def pooled_distance(first: Images, second: Images, *, pooling: int) -> Float[Tensor, " n"]:
    """Mean |x̄₁ - x̄₂| of each pair of images in [-1, 1]; x̄ is x, averaged over squares of `pooling` pixels."""
    return F.avg_pool2d((first - second).float(), pooling).abs().mean(dim=(1, 2, 3))


def mode_seeking_loss(
    *, first: Images, second: Images, pooling: int, caps: Float[Tensor, " n"] | Scalar
) -> Scalar:
    """max(0, cap - mean |x̄₁ - x̄₂|), averaged over pairs of images of one class; x̄ is x pooled.

    Args:
        first: Images in [-1, 1].
        second: Images of the same classes, from other latents.
        pooling: Side of the pooled squares in pixels; pooling keeps the term from rewarding single pixels.
        caps: Distance beyond which two images of a pair's class count as different enough; uncapped, blobs
            fill the margins.

    After Q. Mao et al., "Mode Seeking GANs", CVPR 2019.

    Differs from the paper: a capped difference of pooled images instead of a ratio to the latents' distance.
    """
    return F.relu(caps - pooled_distance(first, second, pooling=pooling)).mean()


def layouts(images: Images, *, side: int) -> Float[Tensor, "n cells"]:
    """Images as seen from afar: averages over a grid of `side` × `side` cells, of every channel."""
    return F.adaptive_avg_pool2d(images.float(), side).flatten(1)


def cell_ranges(images: Images, *, side: int) -> Float[Tensor, "n rows columns"]:
    """Largest less smallest pixel of each of `side` × `side` cells, in the channel where it is most."""
    ranges = F.adaptive_max_pool2d(images, side) + F.adaptive_max_pool2d(-images, side)
    return ranges.amax(dim=1)


def layout_loss(images: Images, wanted: Float[Tensor, "n cells"], *, side: int, tolerance: float) -> Scalar:
    """max(0, |layout of an image - the one it was given| - tolerance), averaged over cells and images.

    Args:
        images: Images in [-1, 1].
        wanted: The `layouts` that they were drawn for.
        side: Cells a side.
        tolerance: By how much a cell may differ for nothing, in the units of the pixels.
    """
    return F.relu((layouts(images, side=side) - wanted).abs() - tolerance).mean()
