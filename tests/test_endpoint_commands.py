"""Whole commands on a model that is known by its address alone."""

import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tests.inference_server import Server, output, serving

from patchmi.cli import main
from patchmi.report import read_result
from patchmi.target.endpoint import TOKEN
from patchmi.target.probe import _noise as noise

NAMES = ("north-east", "north-west", "south-east", "south-west")
"""As folders sort; the model numbers its classes otherwise."""
ORDER = ("north-west", "north-east", "south-west", "south-east")
SMALL = [
    "--attack", "brep-mi", "--setting", "gan.step_count=3", "--setting", "gan.width=8",
    "--setting", "gan.batch_size=8", "--setting", "gan.latent_size=8", "--setting", "point_count=4",
]  # fmt: skip
"""The quickest of the attacks on answers, on the quickest of GANs."""
SECRET = "s3cr3t-t0k3n"
Quarters = Callable[..., Any]


def write_folders(folder: Path, labelled: Any) -> set[bytes]:
    """Class folders of PNG files, and their pixels."""
    pixels = set()
    for number, (image, label) in enumerate(zip(*labelled, strict=True)):
        place = folder / ORDER[int(label)]
        place.mkdir(parents=True, exist_ok=True)
        picture = (image[0] * 255).round().byte().numpy()
        Image.fromarray(picture).save(place / f"{number:03}.png")
        pixels.add(picture.tobytes())
    return pixels


class Home:
    """An auditor's folder, and the model that others deployed."""

    def __init__(self, folder: Path, fit: Callable[..., torch.nn.Module], quarters: Quarters) -> None:
        self.folder = folder
        self.model = fit("lenet", width=8).eval()
        self.train = write_folders(folder / "train", quarters(64, seed=1))
        self.held_out = write_folders(folder / "test", quarters(32, seed=2))
        for seed in (1, 2):
            judge = fit("mlp", width=32, seed=seed)
            weights = {part: value.contiguous() for part, value in judge.state_dict().items()}
            save_file(weights, folder / f"judge-{seed}.safetensors")

    def classify(self, images: np.ndarray) -> np.ndarray:
        with torch.no_grad():
            return self.model(torch.from_numpy(images.copy()).float() / 255).softmax(dim=1).numpy()

    def audit(self, server: Server, out: Path, *more: str) -> list[str]:
        """An audit without private images, and so without judges."""
        return [
            "audit", "--target", server.url, "--class-names", *ORDER, "--image-shape", "1", "16", "16",
            "--access", "label", "--budget", "120", "--public-count", "30", *SMALL, "--count-per-class", "4",
            "--seeds", "1", "--images-per-request", "8", "--rate", "5000", "--out", str(out), *more,
        ]  # fmt: skip

    @property
    def private(self) -> list[str]:
        """Private images and judges of them."""
        judges = (f"patchmi:mlp@{self.folder}/judge-{seed}.safetensors" for seed in (1, 2))
        return [
            "--private", f"{self.folder}/train", "--held-out", f"{self.folder}/test",
            *(part for judge in judges for part in ("--judge", judge)),
        ]  # fmt: skip


@pytest.fixture(scope="module")
def home(fit: Callable[..., torch.nn.Module], quarters: Quarters, tmp_path_factory) -> Home:
    return Home(tmp_path_factory.mktemp("home"), fit, quarters)


@pytest.fixture
def server(home: Home) -> Iterator[Server]:
    with serving(home.classify) as running:
        yield running


@dataclass(frozen=True)
class Audited:
    """An audit that was run to its end: its folder, and what the server was asked by it."""

    out: Path
    server: Server
    asked: Counter[bytes]

    @property
    def result(self) -> dict[str, Any]:
        return read_result(self.out / "result.json")


@pytest.fixture(scope="module")
def audited(home: Home, tmp_path_factory) -> Iterator[Audited]:
    """With private images, and with a token."""
    out = tmp_path_factory.mktemp("audited") / "run"
    with pytest.MonkeyPatch.context() as patch, serving(home.classify) as running:
        patch.setenv(TOKEN, SECRET)
        assert main(home.audit(running, out, *home.private)) == 0
        yield Audited(out, running, Counter(running.asked))


def without_noise(asked: Counter[bytes]) -> Counter[bytes]:
    """What was asked but for the noise that every start of a command begins with."""
    known = {image.tobytes() for image in (noise((1, 16, 16)) * 255).round().byte().numpy()}
    return Counter({image: count for image, count in asked.items() if image not in known})


def refusal(capsys, *arguments: str) -> str:
    """The one line of a command that must end with 2, after whatever was found out."""
    assert main([*arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "Traceback" not in err
    assert err.count("patchmi: error: ") == 1
    line = err.splitlines()[-1]
    assert line.startswith("patchmi: error: ")
    return line


# A whole audit


def test_an_audit_of_an_address_counts_the_attack_s_questions_and_its_own_apart(audited):
    result = audited.result
    box, own = result["attack"]["black_box"], result["audit_questions"]
    assert 0 < box["asked"] <= 120
    assert own["stages"]["the public images, as a control"] == 30
    assert own["stages"]["the reconstructions"] <= 16
    assert set(own["stages"]) == {
        "the public images, as a control",
        "the reconstructions",
        "snapshots of the attack",
    }
    assert own["asked"] == sum(own["stages"].values())
    # The server's own account: both together, and 25 images of noise.
    assert audited.asked.total() == box["asked"] + own["asked"] + 25
    assert result["scores"]["target_top1"] is not None
    assert all(entry["target_top1"] is not None for entry in result["history"])


def test_its_result_says_where_the_model_is_and_claims_no_digest_and_no_accuracy(audited):
    target, url = audited.result["target"], audited.server.url
    assert (target["address"], target["sha256"], target["accuracy"]) == (url, None, None)
    said = " ".join(audited.result["findings"]["target"])
    assert f"No private image was sent to {url}" in said
    assert "--send-held-out measures it" in said
    page = (audited.out / "report.html").read_text()
    assert "No private image was sent to" in page
    assert "30 for the public images, as a control" in page


def test_the_declared_rate_stands_in_result_and_report(audited):
    box = audited.result["attack"]["black_box"]
    assert box["images_per_second"] == 5000
    assert box["seconds_at_rate"] == box["asked"] / 5000
    assert "At 5000 images a second" in (audited.out / "report.html").read_text()


def test_no_private_image_is_among_what_the_server_received(audited, home):
    assert len(audited.asked) > 100
    assert not set(audited.asked) & (home.train | home.held_out)


def test_the_token_reaches_the_server_and_no_file(audited):
    assert {headers["Authorization"] for headers in audited.server.headers} == {f"Bearer {SECRET}"}
    files = [path for path in audited.out.rglob("*") if path.is_file()]
    assert len(files) > 8
    assert not [path for path in files if SECRET.encode() in path.read_bytes()]


def test_a_killed_audit_and_one_that_was_turned_away_go_on_and_ask_nothing_twice(
    home, server, tmp_path, capsys
):
    assert main(home.audit(server, tmp_path / "whole")) == 0
    whole = Counter(server.asked)
    server.asked.clear()
    out = tmp_path / "run"
    command = home.audit(server, out)

    # Killed in the middle of the attack.
    server.seconds = 0.05
    with subprocess.Popen([sys.executable, "-m", "patchmi", *command], stderr=subprocess.DEVNULL) as child:
        while server.asked.total() < 25 + 50:
            assert child.poll() is None
            time.sleep(0.002)
        child.send_signal(signal.SIGKILL)
    server.seconds = 0.0
    assert (out / "attack/seed-0.queries").exists()
    assert not (out / "attack/seed-0.safetensors").exists()

    # Turned away in the last of the audit's own questions, as by a key that ran out.
    def answers_for_a_while(scores: np.ndarray) -> list[dict]:
        if without_noise(server.asked).total() > without_noise(whole).total() - 20:
            server.faults = [(401, {}, b"expired")]
        return output("FP32", scores)

    server.shown = answers_for_a_while
    capsys.readouterr()
    assert "answered 401 (expired)" in refusal(capsys, *command, "--resume")
    server.shown, server.faults = (lambda scores: output("FP32", scores)), []
    assert (out / "attack/seed-0.safetensors").exists()
    assert not (out / "result.json").exists()

    # A lower rate is no other run.
    assert main([*command, "--resume", "--rate", "4000"]) == 0
    sent, expected = without_noise(server.asked), without_noise(whole)
    assert not expected - sent
    # At most the one request that was under way when it died is sent again.
    assert (sent - expected).total() <= 8
    once, again = (read_result(folder / "result.json") for folder in (tmp_path / "whole", out))
    for part in ("artefacts", "scores", "classes", "audit_questions"):
        assert once[part] == again[part]
    for count in ("asked", "repeated", "stages", "answered"):
        assert once["attack"]["black_box"][count] == again["attack"]["black_box"][count]

    # Done, it asks nothing more.
    server.asked.clear()
    assert main([*command, "--resume"]) == 0
    assert not without_noise(server.asked)


def test_another_address_is_another_run(audited, home, server, capsys):
    assert main([*home.audit(server, audited.out, *home.private), "--resume"]) == 2
    said = capsys.readouterr().err
    assert f'target: "{audited.server.url}" -> "{server.url}"' in said
    assert not without_noise(server.asked)


def test_a_dry_run_sends_noise_alone_and_says_how_much_an_audit_would_send_at_most(
    audited, home, server, tmp_path, capsys
):
    assert main(home.audit(server, tmp_path / "run", "--dry-run", "--rate", "10")) == 0
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert server.asked.total() == 25
    assert not without_noise(server.asked)
    expected = {
        "the attack": 120,
        "the public images, as a control": 30,
        "the reconstructions": 16,
        "snapshots of the attack": 640,
    }
    for what, count in expected.items():
        assert f"sent {count} images at most, for {what}" in lines
    assert f"rate {sum(expected.values()) / 10:.0f} s" in lines
    for stage, count in audited.result["audit_questions"]["stages"].items():
        assert count <= expected[stage]


# Without a verdict


def bare(server: Server, out: Path) -> list[str]:
    return [
        "attack", "--target", server.url, "--class-count", "4", "--image-shape", "1", "16", "16",
        "--access", "score", "--budget", "100", "--public-count", "30", *SMALL, "--count-per-class", "4",
        "--seeds", "1", "--out", str(out),
    ]  # fmt: skip


def test_an_attack_alone_sends_its_budget_at_most(server, tmp_path):
    assert main(bare(server, tmp_path / "run")) == 0
    assert (tmp_path / "run/reconstructions.safetensors").exists()
    assert 25 < server.asked.total() <= 100 + 25


def test_a_score_asks_for_the_target_s_opinion_and_sends_held_out_images_if_the_user_says_so(
    audited, home, server, tmp_path
):
    arguments = [
        "score", f"{audited.out}/reconstructions.safetensors", "--target", server.url,
        "--class-names", *ORDER, *home.private, "--access", "label", "--send-held-out",
        "--out", f"{tmp_path}/score",
    ]  # fmt: skip
    assert main(arguments) == 0
    result = read_result(tmp_path / "score/result.json")
    assert result["scores"]["target_top1"] == audited.result["scores"]["target_top1"]
    assert result["target"]["accuracy"] > 0.8
    stages = result["audit_questions"]["stages"]
    assert stages["held-out images"] == 32
    assert 0 < stages["the reconstructions"] <= 16
    assert home.held_out <= set(server.asked)
    assert not home.train & set(server.asked)
    assert "32 for held-out images" in (tmp_path / "score/report.html").read_text()


# Refusals


def test_white_box_access_is_refused_before_a_single_request(home, server, tmp_path, capsys):
    given = ["--target", server.url, "--class-count", "4", "--image-shape", "1", "16", "16"]
    for command in ("audit", "attack"):
        for more in ([], ["--access", "white-box", "--attack", "general"]):
            line = refusal(capsys, command, *given, *more, "--out", f"{tmp_path}/run")
            assert "an address only answers; add --access score, or label" in line
    assert server.times == []
    assert not (tmp_path / "run").exists()


def test_scores_of_a_model_that_answers_labels_are_refused_before_judges_are_trained(
    home, server, tmp_path, capsys
):
    server.shown = lambda scores: output("INT64", scores.argmax(axis=1))
    line = refusal(capsys, *home.audit(server, tmp_path / "run", *home.private, "--access", "score"))
    assert "answers labels alone; give --access label" in line
    assert not without_noise(server.asked)


def test_a_model_that_answers_labels_is_audited_by_its_labels_alone(home, server, tmp_path):
    server.shown = lambda scores: output("INT64", scores.argmax(axis=1))
    assert main(home.audit(server, tmp_path / "run")) == 0
    result = read_result(tmp_path / "run" / "result.json")
    made = load_file(tmp_path / "run" / "reconstructions.safetensors")
    named = home.classify(made["images"].numpy()).argmax(axis=1) == made["labels"].numpy()
    assert result["scores"]["target_top1"]["value"] == pytest.approx(named.mean())


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ((401, {}, b"who are you?"), "answered 401 (who are you?); check address, token"),
        ((404, {}, b"no such model"), "answered 404 (no such model)"),
        ((429, {}, b"too many"), "answered 429 (too many)"),
        ((200, {}, b"<html>"), "it must answer 4 probabilities, or a label below 4"),
    ],
)
def test_an_address_that_does_not_answer_well_ends_in_one_line(
    home, server, tmp_path, capsys, monkeypatch, fault, said
):
    monkeypatch.setattr("urllib3.util.retry.time.sleep", lambda _: None)
    server.faults = [fault] * 6
    assert said in refusal(capsys, *home.audit(server, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_nobody_at_the_address_is_one_line(home, server, tmp_path, capsys):
    server.url = "http://127.0.0.1:9/v2/models/any/infer"
    assert "127.0.0.1:9/v2/models/any/infer: no answer" in refusal(
        capsys, *home.audit(server, tmp_path / "run")
    )


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (["--class-names", "one", "two", "three"], "3 class names for 4 classes"),
        (["--class-count", "5"], "4 class names for 5 classes"),
        (["--image-shape", "3", "16", "16"], "answered 400"),
        (["--mean", "0.5", "--std", "0.5"], "--mean and --std: an address gets numbers from 0 to 255"),
        (["--judge", "https://host/infer"], "a judge sees private images"),
    ],
)
def test_what_does_not_fit_the_model_is_one_line(home, server, tmp_path, capsys, changes, said):
    assert said in refusal(capsys, *home.audit(server, tmp_path / "run", *home.private), *changes)
    assert not set(server.asked) & (home.train | home.held_out)


def test_a_model_of_other_classes_than_are_named_is_one_line(server, tmp_path, capsys):
    line = refusal(capsys, *bare(server, tmp_path / "run"), "--class-count", "7")
    assert "it must answer 7 probabilities, or a label below 7" in line


@pytest.mark.parametrize(
    "option",
    [["--input-name", "x"], ["--pixel-type", "float32"], ["--images-per-request", "4"], ["--send-held-out"]],
)
def test_options_of_an_address_are_refused_of_a_file(home, tmp_path, capsys, option):
    line = refusal(capsys, "audit", "--target", f"{home.folder}/judge-1.safetensors", *option)
    assert f"{option[0]}: belongs to a --target at an address" in line
