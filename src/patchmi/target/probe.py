"""A target asked a few questions before an audit: what it answers, and what has to be done for it."""

import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchmi import machine
from patchmi.target.access import AsClassifier, Target, unwrap
from patchmi.target.address import AddressedModel
from patchmi.target.endpoint import EndpointFailed
from patchmi.target.reading import TargetInvalid, in_one_line
from patchmi.types import Images, Logits

_TOLERANCE = 1e-4
"""Relative difference of two answers that rounding explains."""


def probe_target(target: Target) -> tuple[Target, tuple[str, ...]]:
    """Ask a copy of the target about a dozen images of noise.

    Args:
        target: As a user gave it; its module is left as it is, bit for bit.

    Returns:
        The target as it must be asked (its access, whether it gives probabilities, in float32), and sentences
        for the report.

    Raises:
        TargetInvalid: If it cannot be audited: it fails on its images, answers NaN or the same to everything,
            or has other classes than it says.
        EndpointFailed: If nobody answers at its address, or not as the protocol says.
    """
    findings = _state_of(target.model)
    formats = {str(weight.dtype) for weight in _floating(target.model)} - {"torch.float32"}
    if formats:
        target = replace(target, model=_copy_of(target).float())
        numbers = ", ".join(sorted(formats)).replace("torch.", "")
        findings.append(f"The model's weights are {numbers}: a copy in float32 is audited.")
    model = machine.place(_copy_of(target)).eval()
    images = _noise(target.image_shape).to(machine.device())
    with machine.seeded(0):
        scores, kind = _ask(model, target, images)
        again, _ = _ask(model, target, images)
        single, _ = _ask(model, target, images[:1])
    if kind is not Tensor:
        findings.append(f"The model answers {kind.__name__}: the scores in it are used.")
    _refuse_useless(target, scores)
    if isinstance(target.model, AddressedModel) and target.model.oracle.answers_labels:
        target = replace(target, access="label")
        findings.append("The model answers labels: nothing tells how sure it is.")
    if not _agree(scores, again):
        findings.append(
            "The model answers differently when asked again: something in it is random (dropout?)."
        )
    elif not _agree(scores[:1], single):
        findings.append("The model's answer to an image depends on the others in the batch.")
    if target.address is None:  # what an address shows was read as probabilities already
        target, found = _probabilities(target, scores)
        findings += found
    if target.access == "white-box" and not _gradient_arrives(target, images):
        target = replace(target, access="score")
        findings.append("No gradient reaches the pixels: attacks on this target can use its scores only.")
    if target.access == "white-box":
        count = target.batch_norm_layer_count
        findings.append(
            f"{count} batch-norm layers remember statistics of the training images."
            if count
            else "No batch-norm layer remembers statistics: attacks run without that term."
        )
    return target, tuple(findings)


def _state_of(model: nn.Module) -> list[str]:
    """In which state the module came."""
    findings = []
    if any(layer.training for layer in model.modules()):
        findings.append("The model came in training mode: it is asked in evaluation mode.")
    frozen = [not weight.requires_grad for weight in model.parameters()]
    if any(frozen):
        findings.append(
            f"{sum(frozen)} of the model's {len(frozen)} parameters are frozen, which attacks do not need."
        )
    return findings


def _copy_of(target: Target) -> nn.Module:
    try:
        return copy.deepcopy(target.model)
    except Exception as error:  # noqa: BLE001 - a module may hold anything
        raise TargetInvalid(
            f"{target.name}: cannot be copied ({in_one_line(error)}), and only a copy may be asked; "
            "take out of the module what cannot be copied"
        ) from None


def _floating(model: nn.Module) -> list[Tensor]:
    return [tensor for tensor in (*model.parameters(), *model.buffers()) if tensor.is_floating_point()]


def _noise(image_shape: tuple[int, int, int]) -> Images:
    """A dozen images: black, white, and noise of several contrasts, fine and coarse."""
    channel_count, height, width = image_shape
    random = torch.Generator().manual_seed(0)
    fine = torch.rand(5, channel_count, height, width, generator=random)
    coarse = torch.rand(5, channel_count, 4, 4, generator=random)
    coarse = nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    contrast = torch.tensor([1.0, 0.5, 0.25, 0.8, 0.1]).reshape(-1, 1, 1, 1)
    flat = torch.tensor([0.0, 1.0]).reshape(-1, 1, 1, 1).expand(-1, *image_shape)
    return torch.cat([fine * contrast, coarse.flip(0), flat])


def _ask(model: nn.Module, target: Target, images: Images) -> tuple[Float[Tensor, "n classes"], type]:
    """What the module itself answers to images in [0, 1], and the type of its answer."""
    shape = "×".join(map(str, images.shape))
    network_input = images
    if target.mean:
        mean, std = (images.new_tensor(numbers).reshape(-1, 1, 1) for numbers in (target.mean, target.std))
        network_input = (images - mean) / std
    try:
        with torch.no_grad():
            answer: Any = model(network_input)
    except EndpointFailed:
        raise
    except Exception as error:  # noqa: BLE001 - a model may raise anything
        raise TargetInvalid(
            f"{target.name}: fails on images of {shape} ({in_one_line(error)}); {_advice(model, images)}"
        ) from None
    try:
        scores = unwrap(answer)
    except TypeError as error:
        raise TargetInvalid(f"{target.name}: {error}") from None
    if scores.ndim != 2 or len(scores) != len(images):
        raise TargetInvalid(
            f"{target.name}: answers {'×'.join(map(str, scores.shape)) or 'one number'} to images of "
            f"{shape}; it must answer N×classes, also to a single image"
        )
    return scores.float(), type(answer) if not isinstance(answer, Tensor) else Tensor


def _advice(model: nn.Module, images: Images) -> str:
    """What to do about a model that fails on images."""
    if len(images) == 1:
        return "it answers several images, and must answer one alone too"
    said = "give the --image-shape it was trained on"
    first = next((layer for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)
    if first is None or first.in_channels == images.shape[1]:
        return said
    return f"{said}: its first convolution takes {first.in_channels} channels, not {images.shape[1]}"


def _refuse_useless(target: Target, scores: Logits) -> None:
    if not bool(scores.isfinite().all()):
        raise TargetInvalid(
            f"{target.name}: answers NaN or infinity; look at its weights, and at --mean and --std"
        )
    if scores.shape[1] != target.class_count or target.class_count < 2:
        raise TargetInvalid(
            f"{target.name}: answers {scores.shape[1]} scores an image, and there are {target.class_count} "
            "class names; give one --class-names entry a score, two or more"
        )
    # At an address labels, or rounded scores, may well be the same for all noise.
    if target.address is None and torch.allclose(scores, scores[:1].expand_as(scores), rtol=1e-5, atol=0):
        raise TargetInvalid(
            f"{target.name}: answers the same to every image; are the weights those of a training, and "
            "--mean and --std those it was trained with?"
        )


def _agree(scores: Logits, others: Logits) -> bool:
    return bool(((scores - others).abs() <= _TOLERANCE * scores.abs().max()).all())


def _probabilities(target: Target, scores: Logits) -> tuple[Target, list[str]]:
    """Whether the rows are distributions; asked of the answers whatever was said before."""
    within = bool(((scores >= 0) & (scores <= 1 + _TOLERANCE)).all())
    sums = bool(((scores.sum(dim=1) - 1).abs() < 1e-3).all())
    findings = []
    if within and sums:
        findings.append("The model answers probabilities: their logarithm is used as logits.")
    elif within:
        findings.append(
            "The scores lie between 0 and 1 without summing to 1 (sigmoids?): they are used as logits."
        )
    if target.gives_probabilities and not (within and sums):
        findings.append(
            "The model was said to answer probabilities, but does not: its scores are used as logits."
        )
    return replace(target, gives_probabilities=within and sums), findings


def _gradient_arrives(target: Target, images: Images) -> bool:
    """Whether the scores change with the pixels in a way that backpropagation finds."""
    module = machine.place(AsClassifier(replace(target, model=_copy_of(target)))).eval().requires_grad_(False)
    pixels = images.clone().requires_grad_()
    try:
        with machine.seeded(0):
            logits = module(pixels)
        weights = torch.arange(1.0, logits.shape[1] + 1, device=logits.device)
        (gradient,) = torch.autograd.grad((logits * weights).sum(), pixels)
    except Exception:  # noqa: BLE001 - a model that leaves torch on its way may raise anything
        return False
    of_images = gradient.flatten(1)
    return bool((of_images.isfinite().all(dim=1) & of_images.any(dim=1)).any())
