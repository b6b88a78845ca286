"""What a user says of a model, and what its files say."""

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from patchmi.types import Access, PixelType


class TargetInvalid(ValueError):  # noqa: N818 - what it says, not that it is an error
    """A model that cannot be audited as it was given: one line with the file or option and the remedy."""


@dataclass(frozen=True)
class TargetFile:
    """What a user says of a model; what is left out is taken from the model's files where they say it.

    Args:
        source: A file, a Hugging Face folder, `timm:NAME`, `hub:OWNER/NAME` (`@REVISION` may follow), or the
            address of a deployed model, `https://HOST/v2/models/NAME/infer`.
        architecture: What a state dict belongs to: `timm:NAME`, `patchmi:NAME` or `package.module:function`.
        weights: The state dict of `timm:NAME`.
        class_names: One name a class, in the order of the logits.
        image_shape: Channels, height and width.
        mean: Subtracted from each channel of an image in [0, 1].
        std: What each channel is divided by then.
        trust_model: Whether files may be opened that run code: TorchScript and torch.export.
        class_count: How many classes, where neither names nor files say it.
        input_name: What a model at an address calls its images.
        pixel_type: What it is sent their numbers as: `uint8`, or `float32` in [0, 1] before mean and std.
        images_per_request: Images that it is sent at a time.
        images_per_second: Images that it is sent in a second at most; None: as fast as it answers.
        sees_private: Whether private images may be sent to an address.
    """

    source: str
    architecture: str | None = None
    weights: Path | None = None
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    trust_model: bool = False
    class_count: int | None = None
    input_name: str = "images"
    pixel_type: PixelType = "uint8"
    images_per_request: int = 32
    images_per_second: float | None = None
    sees_private: bool = False


@dataclass(frozen=True)
class Reading:
    """What one reader found in a model's files; what they do not say is empty or None.

    Args:
        model: The network with its weights, in evaluation mode.
        files: The files that hold the weights; none of a model at an address.
        architecture: What kind of network it is.
        class_names: One name a class.
        image_shape: Channels, height and width.
        mean: For images in [0, 1], as `Target` takes it.
        std: Likewise.
        access: The most that the model grants.
        findings: Sentences for the report.
    """

    model: nn.Module
    files: tuple[Path, ...]
    architecture: str
    class_names: tuple[str, ...] = ()
    image_shape: tuple[int, int, int] | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    access: Access = "white-box"
    findings: tuple[str, ...] = ()


def in_one_line(error: Exception) -> str:
    """What another library complains about, short enough for a message of ours."""
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:200]


def listed(names: list[str]) -> str:
    """The first few of many names, and how many there are."""
    return ", ".join(names[:3]) + (f" … ({len(names)} in all)" if len(names) > 3 else "")
