from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.attacks.identity import STUDENTS, IdentityTerm, TargetsWord
from patchmi.losses import IDENTITY_LOSSES
from patchmi.runs import Checkpoint
from patchmi.target import Target, WhiteBox
from patchmi.types import silent

SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def model(fit: Callable[..., nn.Module]) -> nn.Module:
    return fit("lenet", width=4)


@pytest.fixture
def door(model: nn.Module) -> WhiteBox:
    return WhiteBox(Target(model, tuple("abcd"), SHAPE))


@pytest.fixture(scope="module")
def public(quarters: Callable[..., Any]) -> torch.Tensor:
    return quarters(300, seed=8)[0]


def pictures(count: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    random = torch.Generator().manual_seed(1)
    return torch.rand(count, *SHAPE, generator=random), torch.arange(count) % 4


def word_of(term: IdentityTerm, door: WhiteBox, public: torch.Tensor, *, seed: int = 0) -> TargetsWord:
    torch.manual_seed(seed)
    word = TargetsWord(term, door)
    word.prepare(public, silent)
    return word


def slow_loss(name: str, logits: torch.Tensor, labels: torch.Tensor) -> float:
    """One image at a time, in double precision."""
    total = 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        others = torch.cat([row[:label], row[label + 1 :]])
        total += {
            "cross_entropy": float(torch.logsumexp(row, dim=0) - row[label]),
            "max_margin": float(others.max() - row[label]),
            "logit": -float(row[label]),
        }[name]
    return total / len(labels)


def test_every_loss_that_can_be_named_is_there():
    assert set(get_args(get_type_hints(IdentityTerm)["loss"])) == set(IDENTITY_LOSSES)


@pytest.mark.parametrize("name", IDENTITY_LOSSES)
def test_the_targets_word_alone_is_the_loss_of_its_logits(name, door, model, public):
    images, labels = pictures()
    word = word_of(IdentityTerm(loss=name), door, public)
    assert word.loss(images, labels).item() == pytest.approx(
        slow_loss(name, model(images).detach(), labels), rel=1e-4
    )
    assert door.queries.images == len(images), "without students and features nothing is asked before"


@pytest.mark.parametrize("name", IDENTITY_LOSSES)
def test_the_centre_is_the_public_images_mean_features_and_weighs_as_told(name, door, model, public):
    """300 public images are asked in two batches of unlike size."""
    images, labels = pictures()
    word = word_of(IdentityTerm(loss=name, feature_weight=0.7), door, public)
    with torch.no_grad():
        centre = model.features(public).double().mean(dim=0)
        distance = (model.features(images).double() - centre).square().mean()
    torch.testing.assert_close(word.centre.double(), centre, rtol=1e-4, atol=1e-5)
    expected = slow_loss(name, model(images).detach(), labels) + 0.7 * float(distance)
    assert door.queries.images == 300
    assert word.loss(images, labels).item() == pytest.approx(expected, rel=1e-4)
    assert (door.queries.forward, door.queries.images) == (3, 306)


def test_students_have_as_much_word_as_the_target(door, model, public):
    images, labels = pictures()
    word = word_of(IdentityTerm(loss="logit", student_count=2, student_step_count=3), door, public)
    answers = [model(images), *(student(images) for student in word.students.networks)]
    expected = sum(slow_loss("logit", answer.detach(), labels) for answer in answers) / 3
    assert len(word.students.networks) == 2
    assert word.loss(images, labels).item() == pytest.approx(expected, rel=1e-4)


def test_students_learn_the_targets_answers_to_the_public_images(door, model, public, quarters):
    word = word_of(IdentityTerm(student_count=1, student_step_count=60), door, public)
    (student,) = word.students.networks
    images, _ = quarters(100, seed=51)
    with torch.no_grad():
        agreement = (student(images).argmax(dim=1) == model(images).argmax(dim=1)).float().mean()
    assert agreement > 0.85
    assert (door.queries.forward, door.queries.images) == (60, 60 * 64)
    assert door.queries.backward == 0


def test_images_get_gradients_from_students_and_features_too_and_the_networks_none(door, public):
    term = IdentityTerm(feature_weight=1.0, student_count=1, student_step_count=2)
    word = word_of(term, door, public)
    images, labels = pictures()
    slopes = {}
    for name, one in {
        "all": word,
        "target": word_of(IdentityTerm(), door, public),
    }.items():
        asked = images.clone().requires_grad_()
        one.loss(asked, labels).backward()
        assert asked.grad is not None
        slopes[name] = asked.grad
    assert not torch.allclose(slopes["all"], slopes["target"])
    assert not any(parameter.requires_grad for parameter in word.students.networks.parameters())


def test_steps_along_its_gradient_lead_to_the_class(door, model, public):
    images, labels = pictures()
    word = word_of(IdentityTerm(loss="max_margin"), door, public)
    variables = torch.logit(images.clamp(0.01, 0.99)).requires_grad_()
    optimiser = torch.optim.Adam([variables], lr=0.1)
    for _ in range(60):
        optimiser.zero_grad()
        word.loss(torch.sigmoid(variables), labels).backward()
        optimiser.step()
    assert (model(torch.sigmoid(variables)).argmax(dim=1) == labels).all()


def test_a_restored_word_says_the_same_to_the_last_bit_and_counts_on(door, model, public, tmp_path: Path):
    term = IdentityTerm(loss="logit", feature_weight=0.5, student_count=2, student_step_count=3)
    word = word_of(term, door, public)
    images, labels = pictures()
    files = (tmp_path / "0", tmp_path / "1")
    Checkpoint(files, every_seconds=0.0).save(word.state)
    queries = (door.queries.forward, door.queries.images)
    expected = word.loss(images, labels)

    torch.manual_seed(77)
    other_door = WhiteBox(Target(model, tuple("abcd"), SHAPE))
    restored = TargetsWord(term, other_door)
    state = Checkpoint(files, every_seconds=0.0).load()
    assert state is not None
    restored.restore(state)
    assert (other_door.queries.forward, other_door.queries.images) == queries
    assert torch.equal(restored.loss(images, labels), expected)
    assert (other_door.queries.forward, other_door.queries.images) == (queries[0] + 1, queries[1] + 6)

    for one in (word, restored):
        one.students.learn(public[:32])
    assert torch.equal(word.loss(images, labels), restored.loss(images, labels))


def test_the_same_seed_teaches_the_same_students_and_another_others(door, public):
    term = IdentityTerm(student_count=1, student_step_count=2)
    images, labels = pictures()
    first, again, other = (word_of(term, door, public, seed=seed).loss(images, labels) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_features_of_a_target_without_a_last_linear_layer_are_refused_in_one_line(public):
    class Pixels(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return F.adaptive_avg_pool2d(images, 2).flatten(1)

    word = TargetsWord(IdentityTerm(feature_weight=1.0), WhiteBox(Target(Pixels(), tuple("abcd"), SHAPE)))
    with pytest.raises(ValueError, match="no linear layer") as refused:
        word.prepare(public, silent)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"student_count": -1}, "student_count"),
        ({"student_count": len(STUDENTS) + 1}, "student_count"),
        ({"student_step_count": 0}, "student_step_count"),
        ({"feature_weight": -0.1}, "feature_weight"),
    ],
)
def test_settings_that_make_no_sense_are_refused_in_one_line(settings, named):
    with pytest.raises(ValueError, match=named) as refused:
        IdentityTerm(**settings)
    assert "\n" not in str(refused.value)
    assert IdentityTerm(student_count=len(STUDENTS)).student_count == 3
