"""A target at an address: opened without a question, asked with bytes, and known for what it shows."""

import copy

import numpy as np
import pytest
import torch
from tests.inference_server import output, serving

from patchmi.target import (
    AccessDenied,
    TargetFile,
    TargetInvalid,
    TargetMisread,
    answer_of,
    answers,
    check_accuracy,
    open_black_box,
    open_target,
    oracle_of,
    probe_target,
)

SHAPE = (1, 4, 4)
NAMES = ("dark", "grey", "light")


def light(images: np.ndarray) -> np.ndarray:
    """Scores of three classes by how light an image is."""
    mean = images.reshape(len(images), -1).mean(axis=1) / 255
    scores = np.exp(8 * np.stack([1 - mean, np.full_like(mean, 0.6), mean], axis=1))
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture
def server():
    with serving(light) as running:
        yield running


def file_of(url: str, **changes) -> TargetFile:
    return TargetFile(url, **{"class_names": NAMES, "image_shape": SHAPE, **changes})


def test_it_is_opened_without_a_question_and_said_to_be_what_it_is(server):
    opened = open_target(file_of(server.url))
    target = opened.target
    assert server.times == []
    assert (target.name, target.address) == (server.url, server.url)
    assert (target.access, target.class_names, target.image_shape) == ("score", NAMES, SHAPE)
    assert not target.sees_private
    assert open_target(file_of(server.url, sees_private=True)).target.sees_private
    assert "address alone" in opened.findings[0]


def test_another_address_has_another_digest():
    one, other = (open_target(file_of(f"http://host/{name}")) for name in "ab")
    assert one.sha256 != other.sha256
    assert len(one.sha256) == 64


def test_images_travel_with_8_bits_rounded_and_copies_ask_the_same(server):
    target = open_target(file_of(server.url, images_per_request=2)).target
    images = torch.rand(5, *SHAPE, generator=torch.Generator().manual_seed(0))
    sent = (images * 255).round().byte().numpy()
    scores = answers(copy.deepcopy(target), images).softmax(dim=1)
    torch.testing.assert_close(scores, torch.from_numpy(light(sent)).float())
    assert set(server.asked) == {image.tobytes() for image in sent}
    assert server.batches == [2, 2, 1]


def test_a_door_to_it_gets_what_it_shows_and_records_each_request_as_it_arrives(server):
    # Scores that sum to less than 1, as a model that rounds shows them, are not touched.
    server.shown = lambda scores: output("FP32", np.where(scores > 0.5, scores.round(1), 0))
    target = open_target(file_of(server.url, images_per_request=2)).target
    images = torch.randint(256, (6, *SHAPE), dtype=torch.uint8)
    kept: list[bytes] = []

    class Kept:
        def read(self) -> list[bytes]:
            return []

        def append(self, records) -> None:
            kept.extend(records)
            lengths.append(len(records))

    lengths: list[int] = []
    door = open_black_box(target, access="score", budget=6, record=Kept())
    shown = answer_of(door, images, stage="look")
    expected = light(images.numpy())
    torch.testing.assert_close(shown.numpy(), np.where(expected > 0.5, expected.round(1), 0).astype("f4"))
    assert lengths == [2, 2, 2]
    assert torch.equal(shown, oracle_of(target)(images))


def test_one_of_labels_is_recognised_and_grants_no_scores(server):
    server.shown = lambda scores: output("INT64", scores.argmax(axis=1))
    target, findings = probe_target(open_target(file_of(server.url)).target)
    assert target.access == "label"
    assert any("answers labels" in finding for finding in findings)
    with pytest.raises(AccessDenied, match="answers labels alone; give --access label"):
        open_black_box(target, access="score", budget=1)
    door = open_black_box(target, access="label", budget=1)
    white = torch.full((1, *SHAPE), 255, dtype=torch.uint8)
    assert answer_of(door, white, stage="look").tolist() == [[0, 0, 1]]


@pytest.mark.parametrize(
    "same", [output("INT64", np.ones(12)), output("FP32", np.tile([0.0, 1.0, 0.0], (12, 1)))]
)
def test_one_that_answers_the_same_to_all_noise_may_be_right_to(server, same):
    server.shown = lambda scores: [{**same[0], "data": same[0]["data"][: len(scores)]}]
    target, _ = probe_target(open_target(file_of(server.url)).target)
    assert target.access == ("label" if same[0]["datatype"] == "INT64" else "score")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"class_names": ()},
            "nothing says for how many classes it answers; give --class-names, or",
        ),
        ({"image_shape": None}, "does not say how large its images are; give --image-shape"),
        ({"class_count": 4}, "3 class names for 4 classes"),
        ({"architecture": "timm:resnet18"}, "--architecture: belongs to a model in files"),
        ({"trust_model": True}, "--trust-model: belongs to a model in files"),
        ({"mean": (0.5,), "std": (0.5,)}, "--mean and --std: an address gets numbers from 0 to 255"),
    ],
)
def test_what_nobody_says_or_only_files_have_is_one_line_and_no_question(server, changes, message):
    with pytest.raises(TargetInvalid, match=message) as caught:
        open_target(file_of(server.url, **changes))
    assert "\n" not in str(caught.value)
    assert server.times == []


@pytest.mark.parametrize(
    "url",
    ["https://me:secret@host/infer", "https://host/infer?key=secret", "https://host/infer#secret"],
)
def test_an_address_that_may_hold_a_secret_is_refused_and_not_repeated(url):
    with pytest.raises(TargetInvalid, match="PATCHMI_ENDPOINT_TOKEN") as caught:
        open_target(file_of(url))
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://", "https://[1/infer", "http:///infer"])
def test_what_is_no_address_is_refused(url):
    with pytest.raises(TargetInvalid, match="give https://HOST/v2/models/NAME/infer"):
        open_target(file_of(url))


def test_classes_without_names_are_numbered(server):
    target = open_target(file_of(server.url, class_names=(), class_count=3)).target
    assert target.class_names == ("0", "1", "2")


def test_a_misread_one_is_not_sent_its_images_again_to_find_out_why(server):
    target = open_target(file_of(server.url, sees_private=True)).target
    images = torch.cat([torch.full((20, *SHAPE), level) for level in (0.02, 0.98)])
    images += 0.02 * torch.rand(40, *SHAPE, generator=torch.Generator().manual_seed(0)) - 0.01
    labels = torch.tensor([2] * 20 + [0] * 20)
    with pytest.raises(TargetMisread, match="with its classes in another order it is 1"):
        check_accuracy(target, images=images, labels=labels, declared=None)
    assert max(server.asked.values()) == 1
    with pytest.raises(TargetMisread, match="check --image-shape and the order of its classes"):
        check_accuracy(target, images=images[:10], labels=labels[:10], declared=None)
