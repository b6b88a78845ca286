"""Whole audits of attacks whose answers are known."""

import base64
import hashlib
import io
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file
from tests.audit.conftest import Replay, noise

from patchmi import verdict
from patchmi.attacks import GeneralMI
from patchmi.audit import audit
from patchmi.cli import main
from patchmi.metrics import extract_features
from patchmi.report import read_result, validate_result
from patchmi.runs import ConfigChanged, open_run
from patchmi.types import Progress, silent

SCORES = {
    "judge_top1",
    "judge_top5",
    "confidence",
    "consensus_top1",
    "worst_class_top1",
    "target_top1",
    "precision",
    "recall",
    "density",
    "coverage",
    "frechet_distance",
    "student_accuracy",
}
AUDITS = ["revealing", "harmless", "brief"]


@pytest.fixture
def audited(request):
    return request.getfixturevalue(request.param)


every_audit = pytest.mark.parametrize("audited", AUDITS, indirect=True)


def judge_accuracy(audited) -> float:
    """The judges' mean accuracy on held-out images: of each class, then of the classes."""
    rates = []
    for judge in audited.judges:
        _, logits = extract_features(judge.model, audited.private.held_out_images)
        hits = logits.argmax(dim=1) == audited.private.held_out_labels
        rates += [float(hits[audited.private.held_out_labels == label].double().mean()) for label in range(4)]
    return sum(rates) / len(rates)


# Known answers


def test_an_attack_that_draws_real_images_scores_what_the_judges_score_on_them(revealing):
    scores, controls = revealing.result["scores"], revealing.result["controls"]
    accuracy = judge_accuracy(revealing)
    assert 0.8 < accuracy < 1
    assert scores["judge_top1"]["value"] == pytest.approx(accuracy)
    assert controls["held_out"]["judge_top1"]["value"] == pytest.approx(accuracy)
    judges = [judge["accuracy"] for judge in revealing.result["judges"]]
    assert sum(judges) / 3 == pytest.approx(accuracy)


def test_an_attack_that_draws_real_images_is_faithful_varied_and_instructive(revealing):
    scores = {name: score["value"] for name, score in revealing.result["scores"].items()}
    assert scores["precision"] > 0.6
    assert scores["recall"] > 0.6
    assert scores["density"] > 0.5
    assert scores["coverage"] > 0.6
    assert scores["student_accuracy"] > 0.7
    assert scores["judge_top5"] == 1
    # Copies of held-out images are infinitely nearer to them than to the training images: no number.
    assert revealing.result["neighbours_ratio"] is None
    assert all(entry["nearest_ratio"] is None for entry in revealing.result["classes"])


def test_an_attack_that_draws_real_images_exposes_the_target(revealing):
    assert revealing.result["verdict"]["word"] == "EXPOSED"
    assert all(entry["exposed"] for entry in revealing.result["classes"])


def test_what_was_drawn_before_the_attack_chose_is_judged_apart(world, run_audit, revealing):
    chooses = Replay("real images", world.held_out, noise, draw_unselected=noise)
    audited = run_audit(chooses)
    assert audited.result["scores"] == revealing.result["scores"]
    assert audited.result["verdict"]["word"] == revealing.result["verdict"]["word"]
    hits = [
        float((judge.model(noise(label, seed)).argmax(dim=1) == label).double().mean())
        for judge in audited.judges
        for seed in (0, 1, 2)
        for label in range(4)
    ]
    assert audited.result["unselected"]["judge_top1"]["value"] == pytest.approx(sum(hits) / len(hits))
    assert "unselected" not in revealing.result
    row = "Reconstructions that nobody chose"
    pages = [(one.folder / "report.html").read_text() for one in (audited, revealing)]
    assert [row in page for page in pages] == [True, False]


def test_an_attack_that_draws_noise_scores_as_chance_has_it(harmless):
    scores = {name: score["value"] for name, score in harmless.result["scores"].items()}
    assert scores["judge_top1"] < 0.4
    assert scores["consensus_top1"] < 0.4
    assert scores["worst_class_top1"] < 0.25
    assert scores["precision"] < 0.2
    assert scores["coverage"] < 0.2
    assert scores["student_accuracy"] < 0.75
    assert scores["judge_top1"] == pytest.approx(
        harmless.result["controls"]["untrained_attack"]["judge_top1"]["value"], abs=0.1
    )


def test_an_attack_that_draws_noise_never_exposes_the_target(harmless):
    assert harmless.result["verdict"]["word"] != "EXPOSED"
    assert not any(entry["exposed"] for entry in harmless.result["classes"])


def test_a_consensus_is_of_as_many_judges_as_the_rule_says(revealing):
    made = load_file(revealing.folder / "reconstructions.safetensors")
    images, labels = torch.from_numpy(made["images"]).float() / 255, torch.from_numpy(made["labels"])
    votes = torch.zeros(len(labels), dtype=torch.int64)
    for judge in revealing.judges:
        sureness, answer = extract_features(judge.model, images)[1].double().softmax(dim=1).max(dim=1)
        usual = extract_features(judge.model, revealing.private.held_out_images)[1].double().softmax(dim=1)
        votes += (answer == labels) & (sureness >= usual.amax(dim=1).quantile(0.05))
    # Every seed and class has as many images, so that the mean over them is the mean over all.
    consensus = float((votes >= 2).double().mean())
    assert consensus != float((votes >= 1).double().mean())
    assert revealing.result["scores"]["consensus_top1"]["value"] == pytest.approx(consensus)


def test_the_worst_class_counts_each_of_its_images_once(revealing):
    made = load_file(revealing.folder / "reconstructions.safetensors")
    of_a_class = int((made["labels"] == 0).sum())
    assert of_a_class == 3 * 12
    assert revealing.result["scores"]["worst_class_top1"]["n"] == of_a_class


def test_judges_less_sure_than_of_real_images_have_no_vote_on_noise(harmless):
    scores = harmless.result["scores"]
    assert scores["judge_top1"]["value"] > 0
    assert scores["consensus_top1"]["value"] == 0


def test_real_images_are_nearer_to_the_private_distribution_than_noise(revealing, harmless):
    near, far = (run.result["scores"]["frechet_distance"] for run in (revealing, harmless))
    assert near["value"] < far["value"] / 10
    assert near["high"] < far["low"]


def test_one_seed_decides_nothing_whatever_it_found(brief):
    assert brief.result["verdict"]["word"] == "INCONCLUSIVE"
    assert "1 seed where 3 are needed" in brief.result["verdict"]["reasons"]


def test_the_sentence_says_of_public_images_whether_the_attack_used_them(brief, run_audit):
    without = run_audit(GeneralMI(step_count=1), seeds=(0,)).result["verdict"]["sentence"]
    assert "40 striped pictures, unused by this attack, GeneralMI drew" in without
    assert "unused" not in brief.result["verdict"]["sentence"]


# Controls


@every_audit
def test_every_control_of_the_rule_and_the_ceiling_are_there(audited):
    assert set(audited.result["controls"]) == {*verdict.CONTROLS, "held_out"}
    for control in audited.result["controls"].values():
        assert set(control) == {"judge_top1", "consensus_top1"}


def test_public_images_that_are_all_chosen_for_every_class_are_right_for_one_of_four(harmless):
    # Fewer public images than a control asks for: each class gets all of them, and each is one class's.
    assert harmless.result["controls"]["public_selected"]["judge_top1"]["value"] == pytest.approx(0.25)


def test_under_permuted_labels_the_same_images_are_wrong(revealing):
    permuted = revealing.result["controls"]["permuted_labels"]["judge_top1"]["value"]
    assert permuted < 0.15
    # The images with a wrong label bear the one after their class: under the permuted labels still wrong.
    assert revealing.result["scores"]["judge_top1"]["value"] - permuted > 0.6


# The document


@every_audit
def test_the_result_is_valid_and_complete(audited):
    result = read_result(audited.folder / "result.json")
    validate_result(result)
    assert result == audited.result
    assert set(result["scores"]) == SCORES
    assert [entry["name"] for entry in result["classes"]] == list(audited.private.class_names)
    assert len(result["judge_scores"]) == 3 * (6 + ("unselected" in result))
    assert result["agreement"]["judges"] == [judge.name for judge in audited.judges]


@every_audit
def test_every_interval_holds_its_value(audited):
    scores = [*audited.result["scores"].values(), audited.result["target"]["accuracy_interval"]]
    scores += [score for control in audited.result["controls"].values() for score in control.values()]
    assert all(score["low"] <= score["value"] <= score["high"] and score["n"] > 0 for score in scores)


@every_audit
def test_every_artefact_has_the_digest_that_the_result_gives(audited):
    artefacts = audited.result["artefacts"]
    there = [path.relative_to(audited.folder).as_posix() for path in audited.folder.rglob("*.safetensors")]
    assert sorted(artefacts) == sorted(there)
    assert {"reconstructions.safetensors", "evidence.safetensors"} <= set(artefacts)
    for name, digest in artefacts.items():
        assert hashlib.sha256((audited.folder / name).read_bytes()).hexdigest() == digest


@every_audit
def test_no_checkpoint_is_left(audited):
    assert not list(audited.folder.glob("checkpoint/*"))


@every_audit
def test_the_report_is_there_and_says_the_verdict(audited):
    page = (audited.folder / "report.html").read_text()
    assert audited.result["verdict"]["word"] in page


def test_the_attack_is_described_with_its_cost_over_all_seeds(brief, revealing):
    attack = brief.result["attack"]
    assert (attack["name"], attack["recipe"], attack["steps"], attack["seeds"]) == (
        "PatchMI",
        "default",
        3,
        [4],
    )
    # Of three steps the prior alone has the first two.
    assert attack["queries"]["backward"] == 1 < attack["queries"]["forward"]
    assert attack["queries"]["images"] > 3 * 64
    assert attack["seconds"] > 0
    assert attack["config"]["step_count"] == 3
    assert attack["config"]["recipe"]["student_warm_up"] == 2
    # An address would differ from process to process.
    assert " at 0x" not in json.dumps([attack, revealing.result["attack"]])
    assert revealing.result["attack"]["notes"] == ["Nothing was attacked."]
    assert revealing.result["attack"]["seeds"] == [0, 1, 2]


def test_the_history_follows_the_snapshots_of_every_seed(brief, revealing):
    history = brief.result["history"]
    assert [(entry["seed"], entry["step"]) for entry in history] == [(4, 0), (4, 1), (4, 2), (4, 3)]
    assert all(0 <= entry["worst_class_top1"] <= entry["judge_top1"] <= 1 for entry in history)
    assert revealing.result["history"] == []


def test_each_long_stage_tells_how_far_it_is(brief):
    assert brief.calls == [
        "The target looks at the public images",
        "Public images are weighed",
        "Crops of the public images are made",
        "The target looks at crops of them, 1 of 2",
        "Public images are weighed",
        "Crops of the public images are made",
        "The target looks at crops of them, 2 of 2",
        "Public images are weighed",
        "Students learn the target",
        "Patch-MI, seed 4",
        "Patch-MI, seed 4, without the target",
        "Training a student on the reconstructions",
    ]


def test_the_command_report_writes_the_same_page_again(brief, capsys):
    page = brief.folder / "report.html"
    before = page.read_bytes()
    page.unlink()
    assert main(["report", str(brief.folder)]) == 0
    assert page.read_bytes() == before
    assert capsys.readouterr() == (f"{page}\n", "")


# Private images


def pictures_in(page: str) -> list[np.ndarray]:
    data = re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", page)
    return [np.asarray(Image.open(io.BytesIO(base64.b64decode(text)))) for text in data]


def private_images_in(audited, *, images: torch.Tensor) -> set[str]:
    """Files of the run in which a private image can be found, as raw bytes or as a picture."""
    private = {image.numpy().tobytes() for image in (images * 255).round().byte()}
    found = {
        path.name
        for path in audited.folder.rglob("*.*")
        if any(image in path.read_bytes() for image in private)
    }
    page = (audited.folder / "report.html").read_text()
    if any(picture.tobytes() in private for picture in pictures_in(page)):
        found.add("report.html")
    return found


@pytest.mark.parametrize("part", ["train_images", "held_out_images"])
@pytest.mark.parametrize("audited", ["harmless", "brief"], indirect=True)
def test_where_private_images_may_not_be_shown_none_is_in_the_run_folder(audited, part):
    assert private_images_in(audited, images=getattr(audited.private, part)) == set()
    assert "held_out" not in load_file(audited.folder / "evidence.safetensors")


def test_where_they_may_be_shown_held_out_images_stand_beside_the_others(revealing):
    found = private_images_in(revealing, images=revealing.private.held_out_images)
    assert {"evidence.safetensors", "report.html"} <= found
    assert private_images_in(revealing, images=revealing.private.train_images) == set()


# Again


def audit_again(brief, world, *, target_digest: str = "0" * 64, progress: Progress = silent) -> None:
    with open_run(brief.folder, config={}, resume=True) as run:
        audit(
            run,
            target=world.target,
            target_digest=target_digest,
            private=brief.private,
            judges=brief.judges,
            plan=brief.plan,
            progress=progress,
        )


def test_a_finished_audit_is_not_attacked_again_and_gives_the_same_numbers(brief, world):
    before = {path: path.read_bytes() for path in brief.folder.rglob("*.safetensors")}
    calls: list[str] = []

    def progress(steps, description: str):
        calls.append(description)
        return steps

    audit_again(brief, world, progress=progress)
    assert not any("Patch-MI" in call for call in calls)
    assert {path: path.read_bytes() for path in brief.folder.rglob("*.safetensors")} == before
    again = json.loads((brief.folder / "result.json").read_text())
    for document in (again, brief.result):
        del document["created"], document["environment"]
    assert again == brief.result


def test_a_run_folder_whose_target_was_exchanged_is_refused(brief, world):
    before = (brief.folder / "result.json").read_bytes()
    with pytest.raises(ConfigChanged) as caught:
        audit_again(brief, world, target_digest="1" * 64)
    assert caught.value.differences == (f'target.sha256: "{"0" * 64}" -> "{"1" * 64}"',)
    assert (brief.folder / "result.json").read_bytes() == before
