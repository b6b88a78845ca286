"""A deployed model, asked over HTTP by the Open Inference Protocol (KServe, Triton, MLServer, Seldon).

One POST carries a few images as 8-bit numbers; scores or labels come back. Nothing else is ever sent.
"""

import os
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import urllib3
from torch.nn import functional as F

from patchmi.target.reading import in_one_line
from patchmi.types import Bytes, Scores

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
        batch_size: Images a request.
        requests_per_second: At most so many; None: as fast as it answers.
        attempts: Requests for one answer before giving up, with growing pauses between them, or those that
            the server asks for. It may have counted one that failed half-way all the same.
        pause_seconds: Before the second attempt; twice as long before each further one.
        timeout_seconds: How long to wait for an answer.
    """

    url: str
    class_count: int
    input_name: str = "images"
    batch_size: int = 32
    requests_per_second: float | None = None
    attempts: int = 6
    pause_seconds: float = 0.5
    timeout_seconds: float = 30.0

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.attempts < 1 or self.class_count < 1:
            raise ValueError("batch_size, attempts and class_count: give 1 or more")
        if self.requests_per_second is not None and self.requests_per_second <= 0:
            raise ValueError(f"requests_per_second is {self.requests_per_second}: give more than 0, or None")


class EndpointOracle:
    """Whoever answers behind an endpoint: images of 8 bits a pixel in, scores out.

    Args:
        endpoint: How to ask.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        retry = urllib3.Retry(
            total=endpoint.attempts - 1,
            backoff_factor=endpoint.pause_seconds,
            status_forcelist=_WORTH_ANOTHER_TRY,
            allowed_methods=("POST",),
            redirect=0,
            raise_on_status=False,
        )
        self._http = urllib3.PoolManager(retries=retry, timeout=endpoint.timeout_seconds)
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
        self._wait_for_turn()
        tensor = {"name": endpoint.input_name, "shape": list(images.shape), "datatype": "UINT8"}
        body = {"inputs": [tensor | {"data": images.flatten().tolist()}]}
        token = os.environ.get(TOKEN)
        try:
            response = self._http.request(
                "POST",
                endpoint.url,
                json=body,
                headers={"Content-Type": "application/json"}
                | ({"Authorization": f"Bearer {token}"} if token else {}),
            )
        except urllib3.exceptions.HTTPError as error:
            raise EndpointFailed(
                f"{endpoint.url}: no answer ({in_one_line(error)}); check the address, or go on later with "
                "--resume"
            ) from None
        if response.status != 200:
            said = " ".join(response.data[:120].decode(errors="replace").split())
            raise EndpointFailed(
                f"{endpoint.url}: answered {response.status} ({said}); check address, token and limits, then "
                "go on with --resume"
            )
        return self._read(response, count=len(images))

    def _wait_for_turn(self) -> None:
        """Keep to the rate that was declared."""
        if self.endpoint.requests_per_second is not None:
            time.sleep(max(0.0, self._next_request - time.monotonic()))
            self._next_request = time.monotonic() + 1 / self.endpoint.requests_per_second

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
                    labels = torch.from_numpy(values).long()
                    return F.one_hot(labels, class_count).float()
            shapes = ", ".join(f"{one.get('datatype')} {one.get('shape')}" for one in outputs)
            problem = f"outputs {shapes} for {count} images"
        except (ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
            problem = in_one_line(error)
        raise EndpointFailed(
            f"{self.endpoint.url}: {problem}: it must answer {class_count} probabilities, or a label below "
            f"{class_count}, for each image, by the Open Inference Protocol"
        )


def _checked(scores: Scores) -> Scores:
    """Scores that can be probabilities."""
    if not torch.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1.0001:
        raise ValueError("scores below 0, above 1 or not finite")
    return scores
