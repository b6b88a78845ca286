"""A deployed model, asked over HTTP by the Open Inference Protocol (KServe, Triton, MLServer, Seldon).

One POST carries a few images of 8 bits a pixel; scores or labels come back. Nothing else is ever sent.
"""

import math
import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import urllib3
from torch.nn import functional as F

from patchmi.target.reading import in_one_line
from patchmi.types import Bytes, PixelType, Scores

TOKEN = "PATCHMI_ENDPOINT_TOKEN"
"""Environment variable of what is sent as `Authorization: Bearer …`: no place for it in files and logs."""
_WORTH_ANOTHER_TRY = (408, 429, 500, 502, 503, 504)
_SCORES, _LABELS = ("FP16", "FP32", "FP64"), ("INT32", "INT64", "UINT8", "UINT32", "UINT64")


class EndpointFailed(ValueError):  # noqa: N818 - what happened, not that it is an error
    """A deployed model did not answer, or not as the protocol says: one line."""


@dataclass(frozen=True)
class Endpoint:
    """How to ask a deployed model.

    Args:
        url: Where to POST, as `https://HOST/v2/models/NAME/infer`.
        class_count: Scores that it answers; where it answers labels, how many classes there are.
        input_name: What the protocol calls its images.
        pixel_type: What their numbers are sent as: `uint8`, 0 to 255, or `float32`, 0 to 1.
        mean: Subtracted from each channel of images sent as `float32`; empty where the model does so itself.
        std: What each channel is divided by then.
        batch_size: Images a request.
        images_per_second: At most so many: after each request a pause for all of its images; None: as fast as
            it answers.
        attempts: Requests for one answer before giving up, with growing pauses between them, or those that
            the server asks for. It may have counted one that failed half-way all the same.
        pause_seconds: Before the second attempt; twice as long before each further one.
        timeout_seconds: How long to wait for an answer.
    """

    url: str
    class_count: int
    input_name: str = "images"
    pixel_type: PixelType = "uint8"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    batch_size: int = 32
    images_per_second: float | None = None
    attempts: int = 6
    pause_seconds: float = 0.5
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.attempts < 1 or self.class_count < 1:
            raise ValueError("batch_size, attempts and class_count: give 1 or more")
        if self.images_per_second is not None and not 0 < self.images_per_second < math.inf:
            raise ValueError(f"images_per_second is {self.images_per_second}: give more than 0, or None")
        if (self.mean or self.std) and (self.pixel_type == "uint8" or len(self.mean) != len(self.std)):
            raise ValueError("mean and std: belong to pixel_type float32, both with one number a channel")

    def numbers(self, images: Bytes) -> tuple[str, list[int] | list[float]]:
        """The protocol's name of what is sent for images of 8 bits a pixel, and the numbers one by one."""
        if self.pixel_type == "uint8":
            return "UINT8", images.flatten().tolist()
        values = images.float() / 255
        if self.mean:
            mean, std = (torch.tensor(one).reshape(-1, 1, 1) for one in (self.mean, self.std))
            values = (values - mean) / std
        return "FP32", values.flatten().tolist()


class EndpointOracle:
    """Whoever answers behind an endpoint: images of 8 bits a pixel in, scores out.

    Args:
        endpoint: How to ask.

    Attributes:
        answers_labels: Whether what it has answered so far were labels.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self.answers_labels = False
        self._has_answered = False
        self._retries = urllib3.Retry(
            total=endpoint.attempts - 1,
            backoff_factor=endpoint.pause_seconds,
            status_forcelist=_WORTH_ANOTHER_TRY,
            allowed_methods=("POST",),
            redirect=0,
            raise_on_status=False,
        )
        self._http = urllib3.PoolManager(timeout=endpoint.timeout_seconds)
        self._next_request = 0.0

    def __call__(self, images: Bytes) -> Scores:
        """One row of class scores an image; of a model that answers labels, 1 for the label and 0 else.

        Raises:
            EndpointFailed: It does not answer, or not as the protocol says.
        """
        if not len(images):
            return torch.zeros(0, self.endpoint.class_count)
        return torch.cat([self._ask(some) for some in images.split(self.endpoint.batch_size)])

    def _ask(self, images: Bytes) -> Scores:
        endpoint = self.endpoint
        self._wait_for_turn(len(images))
        datatype, numbers = endpoint.numbers(images)
        tensor = {"name": endpoint.input_name, "shape": list(images.shape), "datatype": datatype}
        body = {"inputs": [tensor | {"data": numbers}]}
        token = _token()
        try:
            response = self._http.request(
                "POST",
                endpoint.url,
                json=body,
                # An address where nobody was ever met is wrong rather than busy.
                retries=self._retries if self._has_answered else self._retries.new(connect=0),
                headers={"Content-Type": "application/json"}
                | ({"Authorization": f"Bearer {token}"} if token else {}),
            )
        except urllib3.exceptions.HTTPError as error:
            raise EndpointFailed(
                f"{endpoint.url}: no answer ({in_one_line(error)}); check the address, or go on later with "
                "--resume"
            ) from None
        self._has_answered = True
        if response.status != 200:
            said = _quoted(response.data.decode(errors="replace"))
            raise EndpointFailed(
                f"{endpoint.url}: answered {response.status} ({said}); check address, token, limits and "
                "image shape, then go on with --resume"
            )
        return self._read(response, count=len(images))

    def _wait_for_turn(self, image_count: int) -> None:
        """Keep to the rate that was declared."""
        if self.endpoint.images_per_second is not None:
            time.sleep(max(0.0, self._next_request - time.monotonic()))
            self._next_request = time.monotonic() + image_count / self.endpoint.images_per_second

    def _read(self, response: urllib3.BaseHTTPResponse, *, count: int) -> Scores:
        """Scores from the protocol's answer: its first output that holds one row, or one label, an image."""
        class_count = self.endpoint.class_count
        try:
            outputs: list[dict[str, Any]] = response.json()["outputs"]
            for output in outputs:
                if output["datatype"] not in (*_SCORES, *_LABELS):
                    continue
                values = np.asarray(output["data"], dtype=np.float64)
                if output["datatype"] in _SCORES and values.size == count * class_count:
                    return _checked(torch.from_numpy(values).float().reshape(count, class_count))
                if output["datatype"] in _LABELS and values.size == count:
                    scores = F.one_hot(torch.from_numpy(values).long(), class_count).float()
                    self.answers_labels = True
                    return scores
            shapes = ", ".join(f"{one.get('datatype')} {one.get('shape')}" for one in outputs)
            problem = f"outputs {shapes} for {count} images"
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            problem = in_one_line(error)
        raise EndpointFailed(
            f"{self.endpoint.url}: {_quoted(problem)}: it must answer {class_count} probabilities, or a "
            f"label below {class_count}, for each image, by the Open Inference Protocol; check the class "
            "names, or their count, and the address"
        )


def _token() -> str:
    """What the environment holds; empty where it holds nothing.

    Raises:
        EndpointFailed: No header can carry it.
    """
    token = os.environ.get(TOKEN, "").strip()
    if not (token.isascii() and token.isprintable()):
        raise EndpointFailed(f"{TOKEN}: holds what no header can carry; give one line of ASCII")
    return token


def _quoted(text: str) -> str:
    """What a server says, short, in one line, and without the token that it may repeat."""
    token = _token()
    return " ".join((text.replace(token, "TOKEN") if token else text).split())[:120]


def _checked(scores: Scores) -> Scores:
    """Scores that can be probabilities."""
    if not torch.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1.0001:
        raise ValueError("scores below 0, above 1 or not finite")
    return scores
