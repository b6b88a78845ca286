"""From files, or an address, to a target. What a file says is run only in formats that users trust."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from patchmi.target.access import Target, unwrap
from patchmi.target.address import is_address, read_address
from patchmi.target.architectures import build_network, timm_configuration
from patchmi.target.description import Description, read_description
from patchmi.target.file_kinds import kind_of
from patchmi.target.hugging_face import download, read_hugging_face
from patchmi.target.onnx import read_onnx
from patchmi.target.reading import Reading, TargetFile, TargetInvalid, in_one_line
from patchmi.target.state_dict import fit_weights, read_weights, refuse_non_finite
from patchmi.target.trusted import read_trusted

SIDE_LIMIT = 4096
"""Pixels; a file that says more would only cost memory."""


@dataclass(frozen=True)
class Opened:
    """A target from files, or at an address.

    Args:
        target: The classifier, not yet probed.
        sha256: Of its weights' file; of several files, of their bytes one after the other, by name; of an
            address, of itself.
        findings: Sentences for the report: what was left out, renamed, or taken from where.
    """

    target: Target
    sha256: str
    findings: tuple[str, ...]


def open_target(
    file: TargetFile, *, class_count: int | None = None, image_shape: tuple[int, int, int] | None = None
) -> Opened:
    """Open a classifier from files, without running code from them, or one at an address, without asking it.

    What the user says goes before what the files say, and that before what the private images are like.

    Args:
        file: What the user says.
        class_count: Number of classes of the private images, where they are known; `file`'s own goes before.
        image_shape: Channels, height and width of the private images, used where nothing else says them.

    Raises:
        UnsafeInput: If opening it could run code.
        TargetInvalid: If it cannot be opened, or something is left that the user must say.
    """
    class_count = file.class_count or class_count
    if file.class_names and class_count not in (None, len(file.class_names)):
        raise TargetInvalid(
            f"{len(file.class_names)} class names for {class_count} classes; give one name a class"
        )
    reading = _read(file, class_count=class_count or len(file.class_names) or None)
    refuse_non_finite(reading.model, source=file.source)
    findings = list(reading.findings)
    shape = file.image_shape or reading.image_shape
    if shape is None and image_shape is not None:
        shape = (_channel_count(reading.model) or image_shape[0], *image_shape[1:])
        findings.append(
            f"Its images were taken to be {' × '.join(map(str, shape))}, as nothing says their size."
        )
    if shape is None:
        raise TargetInvalid(
            f"{file.source}: does not say how large its images are; give --image-shape, as 3 32 32 for "
            "channels, height and width"
        )
    if not all(0 < size <= SIDE_LIMIT for size in shape):
        raise TargetInvalid(
            f"{file.source}: its images are said to be {'×'.join(map(str, shape))}; give an --image-shape of "
            f"1 to {SIDE_LIMIT:,} pixels a side"
        )
    mean, std = reading.mean, reading.std
    if file.mean or file.std:
        if reading.mean:
            findings.append("Mean and standard deviation are those given, not those of the model's files.")
        mean, std = file.mean, file.std
    class_names = file.class_names or reading.class_names
    if class_names and file.class_count not in (None, len(class_names)):
        raise TargetInvalid(
            f"{file.source}: names {len(class_names)} classes, --class-count says {file.class_count}; leave "
            "it out"
        )
    if not class_names:
        count = class_count or _count_classes(reading.model, shape, source=file.source)
        class_names = tuple(str(label) for label in range(count))
        findings.append("The classes have no names: they are numbered.")
    is_remote = is_address(file.source)
    try:
        target = Target(
            reading.model,
            class_names,
            shape,
            name=_name(file.source),
            architecture=reading.architecture,
            mean=mean,
            std=std,
            gives_probabilities=is_remote,
            access=reading.access,
            address=file.source if is_remote else None,
            sees_private=file.sees_private or not is_remote,
        )
    except ValueError as error:
        raise TargetInvalid(f"{file.source}: {error}") from None
    sha256 = hashlib.sha256(file.source.encode()).hexdigest() if is_remote else _sha256(reading.files)
    return Opened(target, sha256, tuple(findings))


def _read(file: TargetFile, *, class_count: int | None) -> Reading:
    if is_address(file.source):
        return read_address(file, class_count=class_count)
    origin, _, name = file.source.partition(":")
    if origin == "timm":
        return _read_timm(name, file.weights)
    if file.weights is not None:
        raise TargetInvalid(f"--weights belongs to timm:NAME; give {file.source} alone")
    if origin == "hub":
        folder = download(name)
        reading = read_hugging_face(folder)
        return replace(reading, findings=(*reading.findings, f"The hub's revision is {folder.name}."))
    path = Path(file.source).expanduser()
    if path.is_dir():
        return read_hugging_face(path)
    kind = kind_of(path)
    if kind == "ONNX":
        return read_onnx(path)
    if kind in ("TorchScript", "torch.export"):
        return read_trusted(path, kind, trust_model=file.trust_model)
    if file.architecture is None:
        if kind == "safetensors" and (said := read_description(path)):
            return _read_described(path, said)
        read_weights(path, kind)  # a whole model or worse is refused for what it is
        raise TargetInvalid(
            f"{path}: holds weights without their network; give --architecture: timm:NAME, patchmi:NAME or "
            "package.module:function"
        )
    return _read_state_dict(path, file.architecture, class_count=class_count)


def _read_state_dict(path: Path, architecture: str, *, class_count: int | None = None) -> Reading:
    weights, findings = read_weights(path, kind_of(path))
    network = build_network(architecture, weights, class_count=class_count)
    fitted, renamed = fit_weights(weights, network, source=f"{path} as {architecture}")
    network.load_state_dict(fitted, strict=False)  # it fits, up to counters that need not be there
    return Reading(network.eval(), (path,), architecture, findings=(*findings, *renamed))


def _read_described(path: Path, said: Description) -> Reading:
    reading = _read_state_dict(path, said.architecture)
    found = f"Architecture, classes and size of the images are those that {path.name} itself names."
    return replace(
        reading,
        class_names=said.class_names,
        image_shape=said.image_shape,
        findings=(*reading.findings, found),
    )


def _read_timm(name: str, weights: Path | None) -> Reading:
    if weights is None:
        raise TargetInvalid(
            f"timm:{name}: give its --weights; patchmi fetches none, and without them nothing was learnt"
        )
    reading = _read_state_dict(weights, f"timm:{name}")
    configuration = timm_configuration(name)
    channel_count = _channel_count(reading.model) or 3
    shape = (channel_count, *configuration.input_size[1:])
    if channel_count != len(configuration.mean):
        found = (
            f"timm's mean and std are of {len(configuration.mean)} channels, not {channel_count}: not used."
        )
        return replace(reading, image_shape=shape, findings=(*reading.findings, found))
    return replace(
        reading,
        image_shape=shape,
        mean=tuple(configuration.mean),
        std=tuple(configuration.std),
        findings=(*reading.findings, f"Mean, standard deviation and size are those of timm's {name}."),
    )


def _channel_count(model: nn.Module) -> int | None:
    """Channels that the first convolution takes; None where there is none."""
    return next((layer.in_channels for layer in model.modules() if isinstance(layer, nn.Conv2d)), None)


def _count_classes(model: nn.Module, image_shape: tuple[int, int, int], *, source: str) -> int:
    """How many scores the model gives for a black image."""
    try:
        with torch.no_grad():
            logits = unwrap(model(torch.zeros(2, *image_shape)))
    except Exception as error:  # noqa: BLE001 - a model may raise anything
        raise TargetInvalid(
            f"{source}: fails on images of {'×'.join(map(str, image_shape))} ({in_one_line(error)}); give "
            "the --image-shape it was trained on"
        ) from None
    return logits.shape[-1] if logits.ndim else 1


def _name(source: str) -> str:
    """The end of a path; an address as it is, as nothing less tells one model from another."""
    if is_address(source):
        return source
    return Path(source.partition(":")[2] or source).name or source


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()
