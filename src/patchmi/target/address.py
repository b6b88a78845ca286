"""A target at an address: it answers over HTTP, and nothing of it is at hand."""

from typing import Any

from torch import nn
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from patchmi.target.endpoint import TOKEN, Endpoint, EndpointOracle
from patchmi.target.reading import Reading, TargetFile, TargetInvalid
from patchmi.types import Images, Scores


def is_address(source: str) -> bool:
    """Whether a source of a model is an address, and no file."""
    return source.lower().startswith(("http://", "https://"))


class AddressedModel(nn.Module):
    """Whoever answers at an address, as a module. Copies ask the same oracle.

    Args:
        oracle: How it is asked.
    """

    def __init__(self, oracle: EndpointOracle) -> None:
        super().__init__()
        self.oracle = oracle

    def __deepcopy__(self, memo: dict[int, Any]) -> "AddressedModel":
        return type(self)(self.oracle)

    def forward(self, images: Images) -> Scores:
        """Scores for images in [0, 1], which travel with 8 bits a pixel; on the device of the images."""
        return self.oracle((images * 255).round().byte().cpu()).to(images.device)


def read_address(file: TargetFile, *, class_count: int | None) -> Reading:
    """A target that only answers; nothing is sent yet.

    Args:
        file: What the user says; its source is the address.
        class_count: How many classes it answers for.

    Raises:
        TargetInvalid: The address may hold a secret, or something was said that only a file can have, or not
            said that nobody else can say.
    """
    _refuse_what_is_no_address(file.source)
    for name in ("architecture", "weights", "trust_model"):
        if getattr(file, name):
            raise TargetInvalid(f"--{name.replace('_', '-')}: belongs to a model in files, not to an address")
    if (file.mean or file.std) and file.pixel_type == "uint8":
        raise TargetInvalid(
            "--mean and --std: an address gets numbers from 0 to 255 and does the rest itself; leave them "
            "out, or add --pixel-type float32"
        )
    if class_count is None:
        raise TargetInvalid(
            f"{file.source}: nothing says for how many classes it answers; give --class-names, or "
            "--class-count"
        )
    endpoint = Endpoint(
        file.source,
        class_count,
        input_name=file.input_name,
        pixel_type=file.pixel_type,
        mean=file.mean,
        std=file.std,
        batch_size=file.images_per_request,
        images_per_second=file.images_per_second,
    )
    return Reading(
        AddressedModel(EndpointOracle(endpoint)).eval(),
        (),
        "unknown",
        access="score",
        findings=(
            "The model is known by its address alone: if another one answers there on the way, nothing here "
            "shows it.",
            "Each start of the command sends it about two dozen images of noise first.",
        ),
    )


def _refuse_what_is_no_address(source: str) -> None:
    """Addresses stand in files and reports: what is secret must not stand in them."""
    try:
        parts = parse_url(source)
    except LocationParseError:
        raise TargetInvalid("--target: is no address; give https://HOST/v2/models/NAME/infer") from None
    if not parts.host:
        raise TargetInvalid(f"{source}: names no host; give https://HOST/v2/models/NAME/infer")
    if parts.auth or parts.query or parts.fragment:
        raise TargetInvalid(
            "--target: the address holds a user, a query or a fragment, and it will stand in files and "
            f"reports; give it without, and a token in {TOKEN}"
        )
