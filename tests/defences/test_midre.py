"""MIDRE: squares in range, one an image, painted exactly, and nothing else touched."""

import pytest
import torch
from tests.defences.test_training import BRIEF, bars, weights

from patchmi.defences import Lesson, Midre, choose_defence, train_defended
from patchmi.defences.midre import LEAST_AREA, erase_squares
from patchmi.networks import build_classifier
from patchmi.target import Training

FILL = torch.tensor([2.0, 3.0, 4.0])  # no pixel is: what is erased can be told from what is not


def erased(count: int, *, height: int = 40, width: int = 40, most_area: float = 0.8) -> torch.Tensor:
    """Where: N×H×W, after a check that all else is as it was."""
    torch.manual_seed(0)
    images = torch.rand(count, 3, height, width)
    after = erase_squares(images, fill=FILL, most_area=most_area)
    where = (after == FILL[:, None, None]).all(dim=1)
    assert torch.equal(after, torch.where(where[:, None], FILL[:, None, None].expand_as(images), images))
    return where


def test_what_is_erased_is_a_square_inside_of_an_area_drawn_uniformly() -> None:
    where = erased(2000)
    rows, columns = where.any(dim=2).sum(dim=1), where.any(dim=1).sum(dim=1)
    assert torch.equal(rows, columns)
    assert torch.equal(where.sum(dim=(1, 2)), rows * columns)  # no holes
    shares = rows.double() ** 2 / 1600
    least, most = (round((share * 1600) ** 0.5) ** 2 / 1600 for share in (LEAST_AREA, 0.8))
    assert shares.min() == least
    assert shares.max() == most
    assert float(shares.mean()) == pytest.approx((LEAST_AREA + 0.8) / 2, abs=0.02)
    assert float(shares.std()) == pytest.approx((0.8 - LEAST_AREA) / 12**0.5, abs=0.02)


def test_every_image_is_erased_apart_and_every_place_is_reached() -> None:
    where = erased(4000, most_area=0.2)
    assert len({mask.numpy().tobytes() for mask in where[:400]}) > 350
    assert where.any(dim=0).all()
    halves = where.float().mean(dim=0).unflatten(0, (2, 20)).mean(dim=(1, 2))
    assert float(halves[0] / halves[1]) == pytest.approx(1, abs=0.1)


def test_images_of_any_shape_keep_it() -> None:
    where = erased(200, height=12, width=30)
    assert where.any(dim=2).sum(dim=1).max() == 12  # a square of more area would be taller than the image
    assert where.any(dim=1).sum(dim=1).max() == round((0.8 * 360) ** 0.5)


def test_the_fill_is_the_mean_of_the_training_images_channel_by_channel() -> None:
    images = torch.stack([torch.full((4, 16, 16), value) for value in (0.25, 0.75)], dim=1)
    lesson = Lesson(images, torch.tensor([0, 1, 0, 1]), BRIEF, class_count=2)
    network = build_classifier("resnet10", class_count=2, channel_count=2, width=8)
    with Midre(0.4).applied(network, lesson) as hooks:
        shown = hooks.transform(torch.zeros(8, 2, 16, 16))
    assert shown.flatten(2).amax(dim=2).unique(dim=0).tolist() == [[0.25, 0.75]]
    areas = (shown[:, 0] > 0).float().mean(dim=(1, 2))
    assert 5**2 / 256 <= float(areas.min()) <= float(areas.max()) <= 10**2 / 256


def test_a_toy_still_learns_and_the_same_from_the_same_seed() -> None:
    training = Training(step_count=40, batch_size=24, learning_rate=5e-3, precision="float32")
    lesson = Lesson(*bars(48), training, class_count=3)
    first, second = (
        train_defended("lenet", choose_defence("midre"), lesson, seed=0, width=4).network for _ in range(2)
    )
    assert weights(first) == weights(second)
    images, labels = bars(60, seed=9)
    assert float((first(images).argmax(1) == labels).float().mean()) > 0.8


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.81, float("nan")])
def test_wrong_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"midre, strength .*: give an area above 0\.1 and at most 0\.8$"):
        Midre(strength)
