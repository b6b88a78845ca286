import unicodedata

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageDraw
from scipy import ndimage

from patchmi.data.procedural import PROCEDURAL, SCRIPTS, catmull_rom, glyphs, leaves, strokes

every_source = pytest.mark.parametrize("name", PROCEDURAL)
SMALL = 16


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that Pillow is asked to write, while it writes them."""
    texts: list[str] = []
    write = ImageDraw.ImageDraw.text

    def note(self, xy, text, *rest, **options):
        texts.append(text)
        return write(self, xy, text, *rest, **options)

    monkeypatch.setattr(ImageDraw.ImageDraw, "text", note)
    return texts


def script(character: str) -> str:
    """The script a character's Unicode name begins with, or `OPERATOR` for a mathematical one."""
    if 0x2200 <= ord(character) < 0x2300:
        return "OPERATOR"
    name = unicodedata.name(character)
    return next((one for one in SCRIPTS if name.startswith(one)), name)


def pen_width(picture: torch.Tensor) -> float:
    """Twice the usual distance from the middle of the ink to its edge, as a share of the side."""
    depth = np.asarray(ndimage.distance_transform_edt(np.pad(picture.numpy() > 0.5, 1)))
    ridge = (depth == ndimage.maximum_filter(depth, 3)) & (depth > 0)
    return float(2 * np.median(depth[ridge]) / picture.shape[-1])


@every_source
def test_the_same_seed_draws_the_same_bytes_and_another_seed_others(name: str) -> None:
    draw = PROCEDURAL[name]
    first, again, other = (draw(4, image_size=SMALL, seed=seed) for seed in (5, 5, 6))
    assert first.numpy().tobytes() == again.numpy().tobytes()
    assert not torch.equal(first, other)


@every_source
def test_drawing_neither_reads_nor_moves_the_global_random_states(name: str) -> None:
    draw = PROCEDURAL[name]

    def next_draws(seed: int, *, draws_before: bool) -> tuple[float, float, torch.Tensor | None]:
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        pictures = draw(2, image_size=SMALL, seed=0) if draws_before else None
        return float(torch.rand(())), np.random.rand(), pictures  # noqa: NPY002

    *untouched, _ = next_draws(1, draws_before=False)
    *after, first = next_draws(1, draws_before=True)
    *_, second = next_draws(2, draws_before=True)
    assert after == untouched
    assert first is not None
    assert second is not None
    assert torch.equal(first, second)


@every_source
@pytest.mark.parametrize("side", [16, 28, 33])
@pytest.mark.parametrize("count", [0, 1, 3])
def test_pictures_have_their_shape_and_range(name: str, side: int, count: int) -> None:
    pictures = PROCEDURAL[name](count, image_size=side, seed=1)
    assert pictures.shape == (count, 3 if name == "leaves" else 1, side, side)
    assert pictures.dtype == torch.float32
    assert ((pictures >= 0) & (pictures <= 1)).all()


@every_source
def test_no_picture_is_blank_and_no_two_are_alike(name: str) -> None:
    pictures = PROCEDURAL[name](40 if name == "leaves" else 300, image_size=SMALL, seed=2)
    assert pictures.mean(dim=(1, 2, 3)).min() > 0.001
    assert pictures.amax(dim=(1, 2, 3)).min() > 0.2
    assert len({picture.numpy().tobytes() for picture in pictures}) == len(pictures)


def test_pens_are_from_six_to_twelve_hundredths_of_the_side_wide() -> None:
    widths = [pen_width(picture) for picture in strokes(60, image_size=128, seed=3)[:, 0]]
    assert min(widths) > 0.05
    assert max(widths) < 0.135
    assert min(widths) < 0.075
    assert max(widths) > 0.105


def test_pens_scale_with_the_picture() -> None:
    """The same seed draws the same curves at every size."""
    small, large = strokes(40, image_size=32, seed=4), strokes(40, image_size=64, seed=4)
    shrunk = torch.nn.functional.avg_pool2d(large, 2)
    assert (shrunk - small).abs().mean() < 0.02


def test_strokes_are_white_on_black_and_leave_most_of_the_picture_free() -> None:
    pictures = strokes(200, seed=5)
    ink = pictures.mean(dim=(1, 2, 3))
    assert ink.min() > 0.01
    assert ink.max() < 0.5
    assert 0.08 < float(ink.mean()) < 0.25
    border = torch.cat([pictures[..., 0, :], pictures[..., -1, :]]).mean()
    assert border < pictures[..., 12:20, 12:20].mean() / 5


def test_strokes_are_one_to_three_connected_curves() -> None:
    pieces = set()
    for picture in strokes(150, image_size=48, seed=6)[:, 0].numpy():
        labelled = np.empty(picture.shape, np.int32)
        ndimage.label(picture > 0.3, output=labelled)
        pieces.add(int(labelled.max()))
    assert {1, 2} <= pieces <= {1, 2, 3}


def test_glyphs_are_never_digits_or_latin_letters(written: list[str]) -> None:
    glyphs(3000, image_size=8, seed=7)
    assert len(written) == 3000
    for character in set(written):
        assert len(character) == 1
        assert not unicodedata.category(character).startswith("N")
        assert not unicodedata.name(character).startswith(("LATIN", "DIGIT", "ARABIC-INDIC", "FULLWIDTH"))
        assert not character.isascii()
        assert script(character) in (*SCRIPTS, "OPERATOR")


def test_glyphs_come_from_every_script_and_from_mathematics(written: list[str]) -> None:
    glyphs(1500, image_size=8, seed=8)
    assert {script(character) for character in written} == {*SCRIPTS, "OPERATOR"}
    assert len(set(written)) > 500


@pytest.mark.parametrize("excluded", SCRIPTS)
def test_a_script_left_out_is_never_drawn(excluded: str, written: list[str]) -> None:
    glyphs(400, image_size=8, seed=9, scripts=tuple(one for one in SCRIPTS if one != excluded))
    seen = {script(character) for character in written}
    assert excluded not in seen
    assert len(seen) >= len(SCRIPTS) - 1


def test_a_script_that_cannot_be_drawn_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"LATIN.*GREEK"):
        glyphs(1, scripts=("GREEK", "LATIN"))


def test_glyphs_stand_near_the_middle_and_inside_the_picture() -> None:
    pictures = glyphs(300, seed=10)
    ink = pictures.mean(dim=(1, 2, 3))
    assert 0.05 < float(ink.mean()) < 0.35
    place = torch.linspace(-0.5, 0.5, 32)
    columns = (pictures.sum(dim=(1, 2)) * place).sum(dim=1) / pictures.sum(dim=(1, 2, 3))
    rows = (pictures.sum(dim=(1, 3)) * place).sum(dim=1) / pictures.sum(dim=(1, 2, 3))
    assert columns.abs().max() < 0.25
    assert rows.abs().max() < 0.25
    frame = torch.ones(32, 32, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert pictures[:, 0, frame].mean() < 0.04


@pytest.mark.parametrize("channels", [1, 3])
def test_leaves_have_the_asked_channels(channels: int) -> None:
    assert leaves(2, image_size=SMALL, channel_count=channels).shape == (2, channels, SMALL, SMALL)


def test_leaves_cover_each_picture_with_colours_of_all_kinds() -> None:
    """A bare pixel would be black but for its shade; uniform colours put about one pixel in 500 there."""
    pictures = leaves(60, seed=11)
    assert (pictures.amax(dim=1) < 0.05).float().mean() < 0.01
    channels = pictures.transpose(0, 1).flatten(1)
    assert channels.mean(dim=1).tolist() == pytest.approx([0.5] * 3, abs=0.05)
    assert channels.std(dim=1).tolist() == pytest.approx([0.3] * 3, abs=0.06)
    colour = (pictures[:, 0] - pictures[:, 1]).abs().mean()
    assert colour > 0.2


def test_leaves_come_in_all_sizes_so_that_likeness_falls_slowly_with_distance() -> None:
    pictures = leaves(120, seed=12, channel_count=1)[:, 0] - 0.5
    spread = pictures.square().mean()
    likeness = [
        float((pictures[:, :, lag:] * pictures[:, :, :-lag]).mean() / spread) for lag in (1, 2, 4, 8, 16, 28)
    ]
    assert likeness[:4] == sorted(likeness[:4], reverse=True)
    assert 0.5 < likeness[0] < 0.85
    assert 0.1 < likeness[2] < 0.45
    assert max(map(abs, likeness[-2:])) < 0.12


def test_leaves_scale_with_the_picture() -> None:
    """Radii are shares of the side: twice the picture, twice the distance of equal likeness."""
    likeness = []
    for side, lag in ((24, 3), (48, 6)):
        pictures = leaves(80, image_size=side, seed=13, channel_count=1)[:, 0] - 0.5
        likeness.append(
            float((pictures[:, :, lag:] * pictures[:, :, :-lag]).mean() / pictures.square().mean())
        )
    assert likeness[0] == pytest.approx(likeness[1], abs=0.1)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(2, 6), samples=st.integers(2, 20))
def test_a_spline_passes_through_its_points(seed: int, count: int, samples: int) -> None:
    points = np.random.default_rng(seed).uniform(-5, 5, (count, 2))
    curve = catmull_rom(points, samples)
    assert curve.shape == ((count - 1) * samples, 2)
    np.testing.assert_allclose(curve[::samples], points[:-1], atol=1e-9)
    np.testing.assert_allclose(curve[samples - 1 :: samples], points[1:], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), count=st.integers(3, 6))
def test_a_spline_has_no_corners_and_leaves_a_point_towards_the_next_but_one(seed: int, count: int) -> None:
    points = np.random.default_rng(seed).uniform(-5, 5, (count, 2))
    samples = 20_001
    curve = catmull_rom(points, samples)
    step = 1 / (samples - 1)
    for inner in range(1, count - 1):
        joint = inner * samples
        arriving = (curve[joint - 1] - curve[joint - 2]) / step
        leaving = (curve[joint + 1] - curve[joint]) / step
        np.testing.assert_allclose(arriving, leaving, atol=0.02)
        np.testing.assert_allclose(leaving, (points[inner + 1] - points[inner - 1]) / 2, atol=0.02)


def test_a_spline_through_points_in_line_stays_on_the_line() -> None:
    curve = catmull_rom(np.array([[0.0, 0.0], [1.0, 2.0], [2.0, 4.0], [3.0, 6.0]]))
    np.testing.assert_allclose(curve[:, 1], 2 * curve[:, 0], atol=1e-12)
