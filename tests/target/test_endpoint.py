"""A deployed model, asked over a real socket."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.inference_server import Server, output, serving

from patchmi.target import Endpoint, EndpointFailed, EndpointOracle, LabelAccess
from patchmi.target.endpoint import TOKEN

SHAPE = (1, 4, 4)
NAMES = ("dark", "grey", "light")


def light(images: np.ndarray) -> np.ndarray:
    """Scores of three classes by how light an image is."""
    mean = images.reshape(len(images), -1).mean(axis=1) / 255
    scores = np.exp(np.stack([1 - mean, np.full_like(mean, 0.6), mean], axis=1))
    return scores / scores.sum(axis=1, keepdims=True)


@pytest.fixture
def server() -> Iterator[Server]:
    with serving(light) as running:
        yield running


def make_oracle(server: Server, **options) -> EndpointOracle:
    settings = {"class_count": 3, "pause_seconds": 0.01, "timeout_seconds": 5.0, **options}
    return EndpointOracle(Endpoint(server.url, **settings))


def pictures(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.randint(
        256, (count, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def test_its_answers_arrive_whole_and_in_order_whatever_the_batches(server):
    images = pictures(11)
    scores = make_oracle(server, batch_size=4)(images)
    torch.testing.assert_close(scores, torch.from_numpy(light(images.numpy())).float())
    assert server.batches == [4, 4, 3]
    assert make_oracle(server)(images[:0]).shape == (0, 3)


@pytest.mark.parametrize(("mean", "std"), [((), ()), ((0.5,), (0.25,))])
def test_images_may_travel_as_floating_point_numbers_with_mean_and_deviation_taken_off(server, mean, std):
    server.datatype = "FP32"
    server.mean, server.std = (*mean, 0.0)[0], (*std, 1.0)[0]
    images = pictures(5)
    answered = make_oracle(server, pixel_type="float32", mean=mean, std=std, batch_size=2)(images)
    assert np.allclose(answered.numpy(), light(images.numpy()), atol=1e-6)
    datatype, numbers = Endpoint(server.url, 3, pixel_type="float32", mean=mean, std=std).numbers(images[:1])
    expected = images[0, 0, 0, 0].item() / 255
    assert (datatype, len(numbers)) == ("FP32", images[0].numel())
    assert numbers[0] == pytest.approx((expected - server.mean) / server.std)


def test_a_model_of_labels_gives_one_for_its_label(server):
    server.shown = lambda scores: output("INT64", scores.argmax(axis=1))
    images = pictures(5)
    expected = torch.from_numpy(light(images.numpy()).argmax(axis=1))
    scores = make_oracle(server)(images)
    assert torch.equal(scores.argmax(dim=1), expected)
    assert torch.equal(scores.sum(dim=1), torch.ones(5))
    door = LabelAccess(make_oracle(server), class_names=NAMES, image_shape=SHAPE, budget=5)
    assert torch.equal(door.labels(images, stage="look"), expected)


def test_scores_may_be_nested_rounded_or_the_best_only_and_stand_beside_other_outputs(server):
    server.shown = lambda scores: [
        *output("FP32", np.zeros((len(scores), 7))),
        *output("BYTES", np.full(len(scores), "grey")),
        *output("FP32", np.where(scores == scores.max(axis=1, keepdims=True), scores.round(1), 0)),
    ]
    scores = make_oracle(server)(pictures(4))
    assert ((scores > 0).sum(dim=1) == 1).all()


def test_a_server_that_is_busy_is_asked_again_after_growing_pauses(server):
    server.faults = [(503, {}, b"busy"), (429, {}, b"slow down"), (500, {}, b"oops")]
    assert make_oracle(server, pause_seconds=0.05)(pictures(2)).shape == (2, 3)
    assert len(server.times) == 4
    pauses = np.diff(server.times)
    assert pauses[2] > 1.5 * pauses[1] > 0.1


def test_a_server_that_says_when_to_come_back_is_obeyed(server):
    server.faults = [(429, {"Retry-After": "1"}, b"")]
    make_oracle(server)(pictures(1))
    assert server.times[1] - server.times[0] >= 1


@pytest.mark.parametrize(
    ("faults", "attempts", "message"),
    [
        (
            [(503, {}, b"busy\nvery")] * 3,
            3,
            r"answered 503 \(busy very\); check address, token, limits and",
        ),
        ([(401, {}, b"who are you?")], 3, r"answered 401 \(who are you\?\)"),
        ([(404, {}, b"")], 3, "answered 404"),
        ([(302, {"Location": "http://127.0.0.1:9/"}, b"")], 1, r"(answered 302|no answer)"),
        ([(200, {}, b"<html>")], 1, "must answer 3 probabilities, or a label below 3, for each image"),
        ([(200, {}, b'{"outputs": 3}')], 1, "must answer 3 probabilities"),
        ([(200, {}, b'{"error": "no"}')], 1, "must answer 3 probabilities"),
    ],
)
def test_what_does_not_answer_well_ends_in_one_line(server, faults, attempts, message):
    server.faults = list(faults)
    with pytest.raises(EndpointFailed, match=message) as caught:
        make_oracle(server, attempts=attempts)(pictures(2))
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(server.url)
    assert server.faults == []


@pytest.mark.parametrize(
    "outputs",
    [
        output("FP32", np.full((2, 4), 0.25)),
        output("FP32", np.array([[0.5, 0.5, np.nan]] * 2)),
        output("FP32", np.array([[4.0, -3.0, 0.0]] * 2)),
        output("INT64", np.array([1, 3])),
        output("INT64", np.array([-1, 0])),
        output("FP32", np.full((1, 3), 0.3)),
        output("BYTES", np.array(["grey", "dark"])),
        [{"name": "out"}],
        [],
    ],
    ids=[
        "more classes",
        "not a number",
        "logits",
        "label too high",
        "label below 0",
        "too few rows",
        "names",
        "no data",
        "nothing",
    ],
)
def test_answers_that_are_no_scores_are_refused(server, outputs):
    server.shown = lambda _: outputs
    with pytest.raises(EndpointFailed, match="must answer 3 probabilities, or a label below 3"):
        make_oracle(server)(pictures(2))


def test_nobody_at_the_address_is_said_in_one_line(server):
    server.server_close()
    with pytest.raises(EndpointFailed, match=r"no answer \(MaxRetryError: .*check the address"):
        EndpointOracle(Endpoint("http://127.0.0.1:9/v2", 3, attempts=2, pause_seconds=0.0))(pictures(1))


def test_a_declared_rate_is_kept(server):
    make_oracle(server, batch_size=2, images_per_second=20.0)(pictures(12))
    # Two images a request: one request in a tenth of a second.
    assert np.diff(server.times).min() >= 0.095
    assert server.times[-1] - server.times[0] < 2


def test_a_token_is_sent_from_the_environment_and_only_then(server, monkeypatch):
    monkeypatch.delenv(TOKEN, raising=False)
    make_oracle(server)(pictures(1))
    monkeypatch.setenv(TOKEN, "secret")
    make_oracle(server)(pictures(1))
    assert [headers.get("Authorization") for headers in server.headers] == [None, "Bearer secret"]


def test_a_server_that_repeats_the_token_does_not_bring_it_into_the_message(server, monkeypatch):
    monkeypatch.setenv(TOKEN, " secret\n")
    server.faults = [(401, {}, b"Bearer secret is unknown")]
    with pytest.raises(EndpointFailed, match=r"answered 401 \(Bearer TOKEN is unknown\)"):
        make_oracle(server)(pictures(1))
    assert server.headers[0]["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("token", ["sec\nret", "sécret"])
def test_a_token_that_no_header_carries_is_refused_without_being_shown(server, monkeypatch, token):
    monkeypatch.setenv(TOKEN, token)
    with pytest.raises(EndpointFailed, match="give one line of ASCII") as caught:
        make_oracle(server)(pictures(1))
    assert "ret" not in str(caught.value)
    assert server.times == []


def test_an_address_where_nobody_was_met_is_not_tried_again_and_again():
    began = time.monotonic()
    with pytest.raises(EndpointFailed, match="no answer"):
        EndpointOracle(Endpoint("http://127.0.0.1:9/v2", 3))(pictures(1))
    assert time.monotonic() - began < 3


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"attempts": 0}, {"images_per_second": 0.0}])
def test_settings_that_there_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="give"):
        Endpoint("http://127.0.0.1:9", 3, **wrong)


CHILD = """
import sys
from pathlib import Path
import torch
from patchmi.runs import Journal
from patchmi.target import Endpoint, EndpointOracle, ScoreAccess

url, journal = sys.argv[1:]
oracle = EndpointOracle(Endpoint(url, 3, batch_size=4))
door = ScoreAccess(
    oracle, class_names=("dark", "grey", "light"), image_shape=(1, 4, 4), budget=80, batch_size=4,
    record=Journal(Path(journal)),
)
images = torch.randint(256, (80, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
for part in images.split(20):
    scores = door.scores(part, stage="look")
print(door.account.asked, scores.sum().item())
"""


def test_a_really_killed_process_goes_on_and_the_server_is_asked_nothing_twice(server, tmp_path: Path):
    """At most the one request that was under way when it died is answered again."""
    server.seconds = 0.05
    command = [sys.executable, "-c", CHILD, server.url, str(tmp_path / "queries")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for kill_after in (3, 9):
        with subprocess.Popen(command, env=environment) as child:
            while len(server.batches) < kill_after:
                assert child.poll() is None
                time.sleep(0.002)
            child.send_signal(signal.SIGKILL)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    asked, total = done.stdout.split()
    assert int(asked) == 80
    images = pictures(80)
    assert set(server.asked) == {image.numpy().tobytes() for image in images}
    # Of each kill, no more than the one request that was under way.
    assert sum(count - 1 for count in server.asked.values()) <= 2 * 4
    assert float(total) == pytest.approx(light(images[60:].numpy()).sum(), rel=1e-5)
