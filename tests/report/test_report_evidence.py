import base64
import io

import numpy as np
import pytest
from PIL import Image

from patchmi.report import EvidenceInvalid, render_report, write_report
from patchmi.report.evidence import evenly_spaced, rank_words, strips, time_line
from patchmi.report.images import png_data_uri


def pixels_of(uri: str) -> np.ndarray:
    head, _, body = uri.partition(",")
    assert head == "data:image/png;base64"
    array = np.asarray(Image.open(io.BytesIO(base64.b64decode(body))))
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_picture_comes_back_bit_for_bit(channels):
    pixels = np.random.default_rng(0).integers(0, 256, size=(channels, 28, 33), dtype=np.uint8)
    assert np.array_equal(pixels_of(png_data_uri(pixels)), pixels)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 4, 4), np.uint8), np.zeros((1, 4, 4), np.float32), np.zeros((4, 4), np.uint8)]
)
def test_what_is_no_8_bit_picture_is_refused(pixels):
    with pytest.raises(ValueError, match="uint8"):
        png_data_uri(pixels)


def test_each_strip_holds_the_pictures_of_its_own_class_at_their_own_ranks(result, evidence, metadata):
    all_strips = strips(result, evidence, metadata)
    assert [strip.position for strip in all_strips] == list(range(10))
    strip = all_strips[7]
    assert [rank for rank, _ in strip.reconstructions] == ["best", "25 %", "median", "75 %", "worst"]
    assert np.array_equal(pixels_of(strip.reconstructions[3][1]), evidence["reconstructions"][7, 3])
    assert np.array_equal(pixels_of(strip.nearest_public[4]), evidence["nearest_public"][7, 4])
    for name in ("held_out", "untrained", "noise"):
        assert np.array_equal(pixels_of(getattr(strip, name)[2]), evidence[name][7, 2])


def test_the_time_line_has_steps_down_and_classes_across(evidence, metadata):
    line = time_line(evidence, metadata)
    assert line is not None
    assert [step for step, _ in line.rows] == [0, 50, 100, 200, 300]
    assert np.array_equal(pixels_of(line.rows[2][1][6]), evidence["history"][2, 6])


def test_many_large_classes_stay_below_ten_megabytes_and_keep_best_and_worst(result_of, evidence_of):
    result = result_of(class_count=60)
    arrays, metadata = evidence_of(class_count=60, channels=3, side=112)
    page = render_report(result, arrays, metadata=metadata)
    assert len(page.encode()) < 10_000_000
    shown = [strip.position for strip in strips(result, arrays, metadata)]
    success = [entry["judge_top1"]["value"] for entry in result["classes"]]
    assert 2 <= len(shown) < 60
    assert {int(np.argmax(success)), int(np.argmin(success))} <= set(shown)
    assert f"{len(shown)} of 60 classes are shown" in page


def test_places_are_evenly_spaced_with_both_ends():
    assert evenly_spaced(5, 8) == [0, 1, 2, 3, 4]
    assert evenly_spaced(101, 5) == [0, 25, 50, 75, 100]


def test_ranks_are_put_in_words():
    assert [rank_words(rank) for rank in (0, 12.5, 50, 100)] == ["best", "12.5 %", "median", "worst"]


def change_type(arrays, metadata):
    arrays["noise"] = arrays["noise"].astype(np.float32)


def drop_a_class(arrays, metadata):
    arrays["held_out"] = arrays["held_out"][:9]


def drop_a_class_from_the_time_line(arrays, metadata):
    arrays["history"] = arrays["history"][:, :9]


def drop_a_neighbour(arrays, metadata):
    arrays["nearest_public"] = arrays["nearest_public"][:, :4]


def put_channels_last(arrays, metadata):
    arrays["untrained"] = np.moveaxis(arrays["untrained"], 2, 4)


def drop_a_rank(arrays, metadata):
    metadata["ranks"] = "[0, 50, 100]"


def spoil_the_steps(arrays, metadata):
    metadata["history_steps"] = "none"


def forget_the_ranks(arrays, metadata):
    del metadata["ranks"]


@pytest.mark.parametrize(
    ("spoil", "word"),
    [
        (change_type, "noise"),
        (drop_a_class, "held_out"),
        (drop_a_class_from_the_time_line, "history"),
        (drop_a_neighbour, "nearest_public"),
        (put_channels_last, "untrained"),
        (drop_a_rank, "ranks"),
        (spoil_the_steps, "history_steps"),
        (forget_the_ranks, "ranks"),
    ],
)
def test_pictures_that_do_not_fit_the_result_are_refused_by_name(result, evidence, metadata, spoil, word):
    spoil(evidence, metadata)
    with pytest.raises(EvidenceInvalid, match=word) as caught:
        render_report(result, evidence, metadata=metadata)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_no_safetensors_is_refused_and_leaves_no_page(run_folder):
    (run_folder / "evidence.safetensors").write_bytes(b"not tensors")
    with pytest.raises(EvidenceInvalid, match=r"evidence\.safetensors"):
        write_report(run_folder)
    assert not (run_folder / "report.html").exists()
