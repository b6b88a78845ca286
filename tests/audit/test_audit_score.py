"""Pictures made elsewhere, missing judges, missing private images, and the positive control."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.attacks import AbstractAttack, Task
from patchmi.audit import Findings, Judge, Pictures, Plan, audit, score
from patchmi.runs import open_run
from patchmi.target import Target, WhiteBox
from patchmi.types import Images, Reconstructions

NAMES = ("north-west", "north-east", "south-west", "south-east")


def elsewhere(world: Any, *, run_count: int = 1, **changes: Any) -> Pictures:
    """Held-out images, twelve a class in each run, as another tool may have made them."""
    drawn = [(world.held_out(label, seed), label, seed) for seed in range(run_count) for label in range(4)]
    images = torch.cat([images for images, _, _ in drawn])
    labels = torch.tensor([label for _, label, _ in drawn]).repeat_interleave(12)
    seeds = torch.tensor([seed for _, _, seed in drawn]).repeat_interleave(12)
    return Pictures(images, labels, seeds, NAMES, **changes)


def scored(world: Any, folder: Path, pictures: Pictures, **given: Any) -> dict[str, Any]:
    arguments = {"private": world.private, "judges": world.judges, **given}
    with open_run(folder, config={}, resume=False) as run:
        assert score(run, pictures, **arguments) == folder / "report.html"
        return run.read_json("result.json")


def test_pictures_made_elsewhere_get_the_numbers_that_the_same_pictures_get_in_an_audit(
    world, revealing, tmp_path
):
    result = scored(world, tmp_path / "run", elsewhere(world, run_count=3))
    for name in ("judge_top1", "consensus_top1", "confidence", "worst_class_top1", "precision", "coverage"):
        assert result["scores"][name] == revealing.result["scores"][name]
    assert result["controls"]["held_out"] == revealing.result["controls"]["held_out"]
    assert result["scores"]["target_top1"] is None
    assert result["target"]["sha256"] is None
    page = (tmp_path / "run/report.html").read_text()
    assert "a target that was not given" in page
    assert "an attack made elsewhere" in page


def test_without_the_attack_s_own_controls_nothing_is_decided(world, tmp_path):
    verdict = scored(world, tmp_path / "run", elsewhere(world, run_count=3))["verdict"]
    assert verdict["word"] == "INCONCLUSIVE"
    assert verdict["reasons"] == ["controls missing: untrained_attack, public_selected"]


def test_with_all_controls_given_pictures_from_elsewhere_can_expose(world, tmp_path):
    noise = torch.rand(48, 1, 16, 16, generator=torch.Generator().manual_seed(1))
    untrained = (noise, torch.arange(4).repeat_interleave(12))
    pictures = elsewhere(world, run_count=3, public=world.public, untrained=untrained, made_by="A tool")
    result = scored(world, tmp_path / "run", pictures, target=world.target, target_digest="1" * 64)
    assert result["verdict"]["word"] == "EXPOSED"
    assert "A tool drew pictures" in result["verdict"]["sentence"]
    assert result["threat"]["public"] == "40 striped pictures"
    assert result["scores"]["target_top1"]["value"] > 0.8
    assert result["target"]["sha256"] == "1" * 64
    assert result["target"]["accuracy"] > 0.8


def test_the_scored_pictures_stand_in_the_contract_s_file(world, tmp_path):
    pictures = elsewhere(world)
    with open_run(tmp_path / "run", config={}, resume=False) as run:
        score(run, pictures, private=world.private, judges=world.judges)
        tensors, metadata = run.read_tensors("reconstructions.safetensors")
    assert torch.equal(tensors["images"], (pictures.images * 255).round().byte())
    assert torch.equal(tensors["seeds"], pictures.seeds)
    assert "north-west" in metadata["class_names"]


def test_without_judges_the_target_s_word_is_reported_and_decides_nothing(world, tmp_path):
    result = scored(
        world, tmp_path / "run", elsewhere(world), judges=[], target=world.target, target_digest="1" * 64
    )
    assert result["verdict"]["word"] == "INCONCLUSIVE"
    assert "no judge looked at the pictures" in result["verdict"]["reasons"][0]
    known = {name for name, value in result["scores"].items() if value is not None}
    assert known == {"target_top1", "student_accuracy"}
    assert all(control is None for control in result["controls"].values())
    assert {entry["judge_top1"] for entry in result["classes"]} == {None}
    assert "not computed" in (tmp_path / "run/report.html").read_text()


def test_without_private_images_judges_speak_and_the_ceiling_is_missing(world, tmp_path):
    result = scored(world, tmp_path / "run", elsewhere(world), private=None)
    assert result["scores"]["judge_top1"]["value"] > 0.8
    assert result["scores"]["coverage"] is None
    assert result["scores"]["student_accuracy"] is None
    assert result["controls"]["held_out"] is None
    assert "no real held-out images to test the judges with" in result["verdict"]["reasons"]
    assert result["threat"]["public_is_private_overlap"] is None
    assert [judge["accuracy"] for judge in result["judges"]] == [None] * 3


class QuarterMeans(nn.Module):
    """A judge without any linear layer: there are no features to compare in."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 20 * nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)


def test_features_are_those_of_the_first_judge_that_has_some(world, tmp_path):
    blind = Judge("blind", "means", QuarterMeans(), "nothing")
    result = scored(world, tmp_path / "run", elsewhere(world), judges=[blind, *world.judges[1:]])
    assert result["extractor"] == "penultimate features of the judge power 2"
    assert result["scores"]["coverage"]["value"] > 0.3
    assert result["scores"]["judge_top1"]["value"] > 0.8


def test_without_any_features_pictures_are_judged_but_not_compared(world, tmp_path):
    blind = [Judge(f"blind {number}", "means", QuarterMeans(), "nothing") for number in range(3)]
    result = scored(world, tmp_path / "run", elsewhere(world), judges=blind)
    assert result["scores"]["judge_top1"]["value"] > 0.8
    assert result["scores"]["coverage"] is None
    assert result["scores"]["student_accuracy"]["value"] > 0.5
    assert result["extractor"] == "no judge"


class Stubborn(nn.Module):
    """A judge that names one class whatever it sees."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(images), -1)


def test_where_judges_name_one_class_for_all_their_agreement_is_undefined_and_said_so(world, tmp_path):
    judges = [Judge(f"stubborn {number}", "constant", Stubborn(), "nothing") for number in range(3)]
    result = scored(world, tmp_path / "run", elsewhere(world), judges=judges)
    assert result["agreement"]["kappa"] == [[1, None, None], [None, 1, None], [None, None, 1]]
    assert "kappa undefined" in " ".join(result["verdict"]["reasons"])


def test_one_judge_is_too_few_for_a_vote(world, tmp_path):
    with pytest.raises(ValueError, match="1 judge, but a reconstruction needs the votes of 2"):
        scored(world, tmp_path / "run", elsewhere(world), judges=world.judges[:1])


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ([0, 0, 1], "run 0 has 2, 1 pictures by class"),
        ([0, 1, 2], "1, 1, 1 pictures"),
        ([0, 1], "1 pictures"),
    ],
)
def test_pictures_that_cannot_be_compared_class_by_class_are_refused(labels, said):
    with pytest.raises(ValueError, match=said):
        Pictures(
            torch.rand(len(labels), 1, 4, 4),
            torch.tensor(labels),
            torch.zeros(len(labels)).long(),
            ("a", ""),
        )


def test_findings_stand_in_the_result_and_on_the_page(world, tmp_path):
    findings = Findings(("The prefix <module.> was taken off.",), ("2 of 300 images were broken.",))
    result = scored(world, tmp_path / "run", elsewhere(world), findings=findings)
    assert result["findings"] == {"target": list(findings.target), "images": list(findings.images)}
    page = (tmp_path / "run/report.html").read_text()
    assert "The prefix &lt;module.&gt; was taken off." in page
    assert "2 of 300 images were broken." in page


@dataclass(frozen=True)
class DrawsFor(AbstractAttack):
    """An attack that succeeds on one kind of target only: it draws held-out images for it, else noise."""

    draw: Callable[[int, int], torch.Tensor]
    leaking: str

    def without_target(self) -> "DrawsFor":
        return replace(self, leaking="")

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        return {}

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        leaks = door.class_names[0] == self.leaking
        random = torch.Generator().manual_seed(task.seed)
        images = torch.cat(
            [
                self.draw(label, task.seed)[: task.count_per_class]
                if leaks
                else torch.rand(task.count_per_class, 1, 16, 16, generator=random)
                for label in range(4)
            ]
        )
        labels = torch.arange(4).repeat_interleave(task.count_per_class)
        return Reconstructions(images, labels, torch.full_like(labels, task.seed))


@pytest.fixture
def leaky(world) -> Target:
    return replace(world.target, class_names=("leaky", *NAMES[1:]), name="a model known to leak")


def audited(world: Any, folder: Path, attack: AbstractAttack, **plan_changes: Any) -> dict[str, Any]:
    plan = Plan(attack, world.public, seeds=(0, 1, 2), count_per_class=12, **plan_changes)
    with open_run(folder, config={}, resume=False) as run:
        audit(
            run,
            target=world.target,
            target_digest="0" * 64,
            private=world.private,
            judges=world.judges,
            plan=plan,
        )
        return run.read_json("result.json")


def test_a_failure_counts_once_the_same_attack_exposed_a_model_known_to_leak(world, leaky, tmp_path):
    result = audited(world, tmp_path / "run", DrawsFor(world.held_out, "leaky"), reference=leaky)
    assert result["positive_control"]["name"] == "a model known to leak"
    assert result["positive_control"]["exposed"] is True
    assert result["positive_control"]["consensus_top1"]["value"] > 0.8
    assert (tmp_path / "run/reference/seed-2.safetensors").exists()
    said = result["verdict"]["word"], result["verdict"]["reasons"]
    # Noise is what the judges disagree about, so that the rest of the rule may still forbid a firm word.
    assert "nothing shows that this attack can succeed at this budget" not in said[1]
    assert "Positive control" in (tmp_path / "run/report.html").read_text()


def test_an_attack_too_weak_for_the_model_known_to_leak_decides_nothing(world, leaky, tmp_path):
    result = audited(world, tmp_path / "run", DrawsFor(world.held_out, "nobody"), reference=leaky)
    assert result["positive_control"]["exposed"] is False
    assert result["verdict"]["word"] == "INCONCLUSIVE"
    assert "the same attack failed on a reference model known to leak" in result["verdict"]["reasons"]


def test_an_exposed_target_needs_no_positive_control(world, leaky, tmp_path):
    result = audited(world, tmp_path / "run", DrawsFor(world.held_out, "north-west"), reference=leaky)
    assert result["verdict"]["word"] == "EXPOSED"
    assert result["positive_control"] is None
    assert not (tmp_path / "run/reference").exists()
