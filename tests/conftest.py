"""A problem that the eye solves, for all that needs a target: in which quarter is the bright blob?"""

import signal
from collections.abc import Callable

import pytest
import torch

from patchmi.networks import ARCHITECTURES
from patchmi.target import Training, train_classifier

# A shell starts background jobs with Ctrl-C ignored, and all they start inherits that: right for a run, but
# these tests send it.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

SIDE = 16
Quarters = Callable[..., tuple[torch.Tensor, torch.Tensor]]


def draw_quarters(count: int, *, seed: int = 0, side: int = SIDE) -> tuple[torch.Tensor, torch.Tensor]:
    """A blob of 4 or 5 pixels a side in quarter 0, 1 (above), 2 or 3 (below), in faint noise."""
    random = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 0.1 * torch.rand(count, 1, side, side, generator=random)
    half = side // 2
    for image, label in zip(images, labels.tolist(), strict=True):
        top, left = torch.randint(1, half - 5, (2,), generator=random).tolist()
        size = int(torch.randint(4, 6, (1,), generator=random))
        row, column = top + half * (label // 2), left + half * (label % 2)
        image[0, row : row + size, column : column + size] = 0.9
    return images, labels


def draw_blobs(count: int, *, seed: int = 0, side: int = SIDE) -> torch.Tensor:
    """What the attacker has: no, one or two small bright boxes anywhere, in the same noise."""
    random = torch.Generator().manual_seed(seed)
    images = 0.1 * torch.rand(count, 1, side, side, generator=random)
    for image in images:
        for _ in range(int(torch.randint(0, 3, (1,), generator=random))):
            height, width = torch.randint(3, 7, (2,), generator=random).tolist()
            row, column = torch.randint(0, side - 6, (2,), generator=random).tolist()
            image[0, row : row + height, column : column + width] = 0.9
    return images


def fit_quarters(name: str, *, width: int, step_count: int = 60, seed: int = 0) -> torch.nn.Module:
    """A small classifier that has learnt where the blob is."""
    images, labels = draw_quarters(128, seed=100 + seed)
    torch.manual_seed(seed)
    model = ARCHITECTURES[name](class_count=4, channel_count=1, width=width)
    training = Training(step_count=step_count, batch_size=32, learning_rate=1e-2)
    return train_classifier(model, images=images, labels=labels, training=training, seed=seed)


@pytest.fixture(scope="session")
def quarters() -> Quarters:
    return draw_quarters


@pytest.fixture(scope="session")
def blobs() -> Callable[..., torch.Tensor]:
    return draw_blobs


@pytest.fixture(scope="session")
def fit() -> Callable[..., torch.nn.Module]:
    return fit_quarters
