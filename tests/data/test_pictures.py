"""Pictures of every kind, written with Pillow, NumPy or by hand, and what becomes of them."""

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ExifTags, Image

from patchmi.data.contents import Broken
from patchmi.data.pictures import MAX_PIXELS, Picture, Tally, decode, fit, range_problem

pytestmark = pytest.mark.usefixtures("offline")

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
COLOUR = RANDOM.integers(0, 256, (6, 9, 3), dtype=np.uint8)


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def read(data: bytes | np.ndarray) -> Picture:
    picture = decode("x", data)
    assert isinstance(picture, Picture), picture
    return picture


def pixels(data: bytes | np.ndarray) -> np.ndarray:
    return np.asarray(read(data).image)


def reason(data: bytes | np.ndarray | Path) -> str:
    broken = decode("x", data)
    assert isinstance(broken, Broken), broken
    assert broken.name == "x"
    assert "\n" not in broken.reason
    assert len(broken.reason) <= 100
    return broken.reason


# Formats


@pytest.mark.parametrize("kind", ["PNG", "BMP", "GIF", "TIFF", "PPM"])
def test_grey_comes_through_unchanged_from_every_exact_format(kind):
    image = read(encoded(Image.fromarray(GREY), kind)).image
    assert np.array_equal(np.asarray(image.convert("L")), GREY)


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "PPM"])
def test_colour_comes_through_unchanged_from_every_exact_format(kind):
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOUR), kind)), COLOUR)


def test_webp_is_read():
    assert np.array_equal(pixels(encoded(Image.fromarray(COLOUR), "WEBP", lossless=True)), COLOUR)


def test_jpeg_is_read_within_its_own_loss():
    ramp = np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1))
    assert abs(pixels(encoded(Image.fromarray(ramp), "JPEG", quality=95)).astype(int) - ramp).max() <= 4


def test_a_picture_s_content_counts_and_not_its_ending(tmp_path):
    path = tmp_path / "wrong.png"
    path.write_bytes(encoded(Image.fromarray(COLOUR), "BMP"))
    picture = decode("wrong.png", path)
    assert isinstance(picture, Picture)
    assert np.array_equal(np.asarray(picture.image), COLOUR)


@pytest.mark.parametrize("kind", ["EPS", "PDF", "ICO"])
def test_other_formats_that_pillow_knows_are_not_decoded(kind):
    assert reason(encoded(Image.fromarray(COLOUR), kind)) == "no image"


# Depths and modes


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_and_not_clipped(kind):
    deep = np.array([[0, 128, 257, 25_700, 32_768, 65_535]], np.uint16)
    picture = read(encoded(Image.fromarray(deep), kind))
    assert np.asarray(picture.image).tolist() == [[0, 0, 1, 100, 128, 255]]
    assert picture.adapted == ("scaled from more bits to 8",)


def tiff(data: bytes, *, bits: int, kind: int, width: int, order: str = "<") -> bytes:
    """One row of grey numbers, written as the TIFF specification says."""
    tags = [(256, width), (257, 1), (258, bits), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1)]
    tags += [(279, len(data)), (339, kind)]
    fields = b"".join(struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in tags)
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8 + len(data))
    return head + data + struct.pack(order + "H", len(tags)) + fields + b"\0\0\0\0"


@pytest.mark.parametrize(
    ("numbers", "kind", "expected"),
    [
        (np.array([0, 2**31, 2**32 - 1, 2**24], "<u4"), 1, [0, 128, 255, 1]),
        (np.array([0, 2**30, 2**31 - 1], "<i4"), 2, [0, 128, 255]),
        (np.array([0, 2**14, 2**15 - 1], "<i2"), 2, [0, 128, 255]),
        (np.array([0, 2**15, 2**16 - 1], "<u2"), 1, [0, 128, 255]),
        (np.array([0, 0.25, 0.5, 1], "<f4"), 3, [0, 64, 128, 255]),
    ],
)
@pytest.mark.parametrize("order", ["<", ">"])
def test_deep_grey_tiff_is_scaled_by_the_range_of_its_numbers(numbers, kind, expected, order):
    data = numbers.astype(numbers.dtype.newbyteorder(order)).tobytes()
    file = tiff(data, bits=8 * numbers.dtype.itemsize, kind=kind, width=len(numbers), order=order)
    if order == ">" and numbers.dtype == "u4":
        assert reason(file) == "no image"  # Pillow reads no such file
    else:
        assert pixels(file)[0].tolist() == expected


def test_twelve_bits_are_scaled_by_their_own_range():
    # 0 and 4095, then 2048 and 0: three half-bytes a number
    file = tiff(bytes.fromhex("000fff800000"), bits=12, kind=1, width=4)
    assert pixels(file)[0].tolist() == [0, 255, 128, 0]


def test_negative_and_odd_float_grey_is_named_and_not_clipped():
    assert "-5" in reason(tiff(np.array([-5, 7], "<i4").tobytes(), bits=32, kind=2, width=2))
    for numbers, words in (([0, 255], "255"), ([-1, 1], r"(images + 1) / 2"), ([0, np.nan], "NaN")):
        file = tiff(np.array(numbers, "<f4").tobytes(), bits=32, kind=3, width=2)
        assert words in reason(file)


def test_one_bit_is_black_and_white():
    assert pixels(encoded(Image.fromarray(GREY > 99))).tolist() == np.where(GREY > 99, 255, 0).tolist()


def test_a_palette_gives_its_colours():
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 7, 7])
    image.putdata([2, 0, 1])
    assert pixels(encoded(image)).tolist() == [[[7, 7, 7], [10, 20, 30], [200, 100, 50]]]
    assert read(encoded(image)).adapted == ()


def over_black(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return np.rint(colours * (alpha[..., None] / 255.0))


def test_transparent_colour_is_laid_on_black():
    alpha = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
    picture = read(encoded(Image.fromarray(np.dstack([COLOUR, alpha]))))
    assert abs(np.asarray(picture.image) - over_black(COLOUR, alpha)).max() <= 1
    assert picture.adapted == ("laid on black where transparent",)
    assert picture.mode == "RGBA"


def test_transparent_grey_is_laid_on_black_and_stays_grey():
    alpha = RANDOM.integers(0, 256, (6, 9), dtype=np.uint8)
    picture = read(encoded(Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])))
    assert picture.image.mode == "L"
    assert abs(np.asarray(picture.image) - over_black(GREY[..., None], alpha)[..., 0]).max() <= 1


@pytest.mark.parametrize("transparency", [1, bytes([255, 0, 255])])
def test_a_palette_s_transparent_entry_is_black(transparency):
    image = Image.new("P", (3, 1))
    image.putpalette([10, 20, 30, 200, 100, 50, 7, 7, 7])
    image.putdata([2, 0, 1])
    picture = read(encoded(image, transparency=transparency))
    assert np.asarray(picture.image).tolist() == [[[7, 7, 7], [10, 20, 30], [0, 0, 0]]]
    assert picture.adapted == ("laid on black where transparent",)


def test_a_transparent_colour_without_an_alpha_channel_is_black():
    image = Image.new("RGB", (2, 1), (9, 9, 9))
    image.putpixel((1, 0), (5, 6, 7))
    assert pixels(encoded(image, transparency=(9, 9, 9))).tolist() == [[[0, 0, 0], [5, 6, 7]]]


def test_an_alpha_channel_that_hides_nothing_is_not_mentioned():
    picture = read(encoded(Image.fromarray(np.dstack([COLOUR, np.full((6, 9), 255, np.uint8)]))))
    assert np.array_equal(np.asarray(picture.image), COLOUR)
    assert picture.adapted == ()


def test_cmyk_becomes_colour():
    image = Image.new("CMYK", (2, 1), (255, 0, 0, 0))
    image.putpixel((1, 0), (0, 0, 0, 255))
    cyan, black = pixels(encoded(image, "TIFF"))[0].tolist()
    assert cyan == [0, 255, 255]
    assert black == [0, 0, 0]
    assert read(encoded(image, "JPEG")).mode == "CMYK"


# EXIF and frames


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize(
    ("orientation", "expected"),
    list(enumerate(["ab/cd", "ba/dc", "dc/ba", "cd/ab", "ac/bd", "ca/db", "db/ca", "bd/ac"], start=1)),
)
def test_a_turned_picture_is_shown_upright(orientation, expected, kind):
    """Quarters a b over c d of four greys, and where EXIF 2.32 says each is to be seen."""
    grey = {"a": 0, "b": 80, "c": 160, "d": 240}
    blocks = np.kron([[grey["a"], grey["b"]], [grey["c"], grey["d"]]], np.ones((16, 16)))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = read(encoded(Image.fromarray(blocks.astype(np.uint8)), kind, exif=exif))
    seen = np.asarray(picture.image.convert("L"), int)[8::16, 8::16]
    wanted = [[grey[letter] for letter in row] for row in expected.split("/")]
    assert abs(seen - wanted).max() < 8
    if kind != "TIFF":  # Pillow turns these itself
        assert ("turned upright, as EXIF says" in picture.adapted) == (orientation != 1)


def test_a_damaged_exif_block_spoils_no_picture():
    data = encoded(Image.fromarray(GREY), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\x7f garbage")
    assert pixels(data).shape == GREY.shape


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_taken_and_it_is_said(kind):
    frames = [Image.new("L", (8, 8), level) for level in (40, 90, 200)]
    picture = read(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    assert abs(np.asarray(picture.image.convert("L"), int) - 40).max() <= 1
    assert picture.adapted == ("of several frames or pages, of which the first was taken",)


def test_a_single_pixel_is_read_and_named():
    assert read(encoded(Image.new("L", (1, 1), 9))).adapted == ("of a single pixel",)


# Broken ones


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_a_truncated_picture_is_broken(kind, share):
    noise = Image.fromarray(RANDOM.integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    assert reason(data[: int(share * len(data))])


def test_an_empty_file_and_a_text_are_named_as_what_they_are(tmp_path):
    assert reason(b"") == "empty file"
    assert reason(b"hello, I am no picture") == "no image"
    (tmp_path / "empty.png").touch()
    assert reason(tmp_path / "empty.png") == "empty file"
    (tmp_path / "text.png").write_text("hello")
    assert reason(tmp_path / "text.png") == "no image"


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises many pixels; what follows would unpack to a gigabyte of zeros."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + 3 * chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(40_000, 40_000), (12_000, 9_000), (MAX_PIXELS + 1, 1)])
def test_a_bomb_is_named_and_not_decoded(size, monkeypatch):
    def explode(self: Image.Image) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load_prepare", explode)
    assert reason(bomb(*size)) == "more than 50,000,000 pixels, not decoded"


def test_what_cannot_be_opened_is_broken_for_the_system_s_reason(tmp_path):
    path = tmp_path / "folder.png"
    path.mkdir()
    assert reason(path) == "Is a directory"


def test_no_warning_of_the_decoder_leaks():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode("x", bomb(12_000, 9_000))
        decode("x", encoded(Image.fromarray(GREY), "TIFF")[:-30])
    assert caught == []


# Arrays


@pytest.mark.parametrize("shape", [(6, 9), (6, 9, 1), (6, 9, 3)])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_are_rounded_to_the_nearest_of_256_levels(shape, kind):
    levels = RANDOM.integers(0, 256, shape)
    assert np.array_equal(pixels((levels / 255).astype(kind)), levels.squeeze())


def test_an_array_that_is_a_view_is_read_in_its_own_order():
    turned = np.moveaxis(np.ascontiguousarray(np.moveaxis(COLOUR, 2, 0)), 0, 2)
    assert np.array_equal(pixels(turned), COLOUR)


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (0, 1, ""),
        (0.2, 0.3, ""),
        (-1e-5, 1 + 1e-5, ""),
        (-1, 1, "(images + 1) / 2"),
        (-0.01, 1, "(images + 1) / 2"),
        (0, 255, "images / 255"),
        (0, 1.01, "images / 255"),
        (-2.1, 2.6, "undo the normalisation"),
        (0, 256, "undo the normalisation"),
        (float("nan"), 1, "NaN"),
        (0, float("inf"), "NaN or infinite"),
    ],
)
def test_a_range_of_floats_is_accepted_or_named_with_the_remedy(low, high, words):
    problem = range_problem(float(low), float(high))
    assert problem == "" if words == "" else words in problem


# Fitting, against a slow and obvious oracle


def oracle(image: np.ndarray, channel_count: int, height: int, width: int) -> np.ndarray:
    """ITU-R 601 brightness or repeated grey, then Lanczos resampling, one axis after the other, on floats."""
    values = image.astype(float)
    if channel_count == 1 and values.ndim == 3:
        values = np.rint(values @ [0.299, 0.587, 0.114])
    if values.ndim == 2:
        values = values[..., None]
    values = np.repeat(values, channel_count // values.shape[2], axis=2)
    for axis, size in ((1, width), (0, height)):
        values = np.apply_along_axis(lanczos, axis, values, size)
    return np.rint(values).transpose(2, 0, 1)


def lanczos(values: np.ndarray, size: int) -> np.ndarray:
    if len(values) == size:
        return values
    scale = len(values) / size
    stretch = max(scale, 1)
    out = []
    for place in range(size):
        centre = (place + 0.5) * scale
        distance = (np.arange(len(values)) + 0.5 - centre) / stretch
        weights = np.where(abs(distance) < 3, np.sinc(distance) * np.sinc(distance / 3), 0)
        out.append((weights * values).sum() / weights.sum())
    return np.array(out)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    colour=st.booleans(),
    shape=st.tuples(st.sampled_from([1, 3]), st.integers(1, 24), st.integers(1, 24)),
)
def test_fitting_equals_the_oracle(seed, size, colour, shape):
    # Of middle contrast: overshoot is not clipped, so that the order of the axes does not matter.
    image = np.random.default_rng(seed).integers(80, 176, (*size, 3) if colour else size, dtype=np.uint8)
    fitted = fit(read(image), shape)
    assert fitted.shape == shape
    assert fitted.dtype == np.uint8
    assert abs(fitted - oracle(image, *shape)).max() <= 2


def test_the_tally_says_what_was_done_to_how_many():
    tally = Tally()
    for image in (GREY, GREY, COLOUR, np.zeros((12, 18), np.uint8)):
        tally.add(read(image))
    tally.add(read(encoded(Image.new("L", (1, 1), 9))))
    assert tally.notes() == ["1 image was of a single pixel"]
    assert tally.fitting_notes((3, 12, 18)) == [
        "4 images were resized from 2 sizes from 1×1 to 6×9 pixels to 12×18",
        "1 image was squeezed from other proportions, not cropped",
        "4 images were repeated from grey in three channels",
    ]
    assert tally.fitting_notes((1, 6, 9)) == [
        "2 images were resized from 2 sizes from 1×1 to 12×18 pixels to 6×9",
        "1 image was squeezed from other proportions, not cropped",
        "1 image was made grey from colour (ITU-R 601 brightness)",
    ]


def test_nothing_to_adapt_says_nothing():
    tally = Tally()
    tally.add(read(GREY))
    assert (tally.notes(), tally.fitting_notes((1, 6, 9))) == ([], [])


def test_decoding_leaves_the_global_random_states_alone():
    before = torch.get_rng_state()
    decode("x", encoded(Image.fromarray(COLOUR)))
    assert torch.equal(torch.get_rng_state(), before)
