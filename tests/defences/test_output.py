"""Defences of the answers: what their modes show, whom they reach, and that no weight changes."""

import re

import pytest
import torch
from tests.defences.test_training import bars, weights
from torch import Tensor

from patchmi.defences import (
    DEFENCES,
    DpSgd,
    Lesson,
    NoDefence,
    OutputDefence,
    choose_defence,
    is_bypassed,
    train_defended,
)
from patchmi.target import PLAIN, LabelAccess, OutputMode, ScoreAccess, Training
from patchmi.types import Access, Bytes, Scores

NAMES = ("rounding", "top-k", "temperature", "noise", "label-only")
ASKED = torch.randint(0, 256, (200, 1, 4, 4), generator=torch.Generator().manual_seed(0)).byte()
SCORES = (2 * torch.randn(200, 6, generator=torch.Generator().manual_seed(1))).softmax(dim=1)


def answer(images: Bytes) -> Scores:
    """The scores of those of the asked images that these are."""
    same = (images.flatten(1)[:, None] == ASKED.flatten(1)).all(dim=2)
    return SCORES[same.int().argmax(dim=1)]


def chosen(name: str, strength: float | None = None) -> OutputDefence:
    defence = choose_defence(name, strength)
    assert isinstance(defence, OutputDefence)
    return defence


def labels(mode: OutputMode) -> Tensor:
    names = tuple("abcdef")
    door = LabelAccess(answer, class_names=names, image_shape=(1, 4, 4), budget=200, mode=mode)
    return door.labels(ASKED, stage="test")


def scores(mode: OutputMode) -> Tensor:
    names = tuple("abcdef")
    door = ScoreAccess(answer, class_names=names, image_shape=(1, 4, 4), budget=200, mode=mode)
    return door.scores(ASKED, stage="test")


@pytest.mark.parametrize(
    ("name", "strength", "mode"),
    [
        ("rounding", None, OutputMode(decimals=1)),
        ("rounding", 0.0, OutputMode(decimals=0)),
        ("top-k", 3.0, OutputMode(top_k=3)),
        ("temperature", 8.0, OutputMode(temperature=8.0)),
        ("noise", 0.05, OutputMode(noise=0.05)),
        ("label-only", None, PLAIN),
    ],
)
def test_a_strength_is_a_mode(name: str, strength: float | None, mode: OutputMode) -> None:
    assert chosen(name, strength).mode == mode


@pytest.mark.parametrize("name", ["rounding", "top-k", "temperature"])
def test_labels_do_not_change_and_scores_do(name: str) -> None:
    for strength in DEFENCES[name].strengths:
        mode = chosen(name, strength).mode
        assert torch.equal(labels(mode), SCORES.argmax(dim=1))
        assert not torch.equal(scores(mode), SCORES)


def test_noise_changes_labels_too() -> None:
    changed = [
        int((labels(chosen("noise", strength).mode) != SCORES.argmax(dim=1)).sum())
        for strength in DEFENCES["noise"].strengths
    ]
    assert changed[0] > 0
    assert changed == sorted(changed)


@pytest.mark.parametrize("name", ["rounding", "top-k", "temperature", "noise"])
def test_strengths_are_listed_weakest_first(name: str) -> None:
    """What is left of the scores' order, and of their differences, never grows."""
    listed = DEFENCES[name]
    assert len(listed.strengths) == 5
    assert listed.start in listed.strengths
    assert "student" in listed.adaptive
    kept = [
        float(torch.corrcoef(torch.stack([scores(chosen(name, one).mode).flatten(), SCORES.flatten()]))[0, 1])
        for one in listed.strengths
    ]
    assert kept == sorted(kept, reverse=True)


@pytest.mark.parametrize("name", NAMES)
def test_no_weight_changes(name: str) -> None:
    lesson = Lesson(*bars(12), Training(step_count=2, batch_size=6, precision="float32"), class_count=3)
    plain, defended = (
        train_defended("mlp", defence, lesson, seed=0, width=2) for defence in (NoDefence(), chosen(name))
    )
    assert weights(defended.network) == weights(plain.network)
    assert defended.architecture == "mlp"
    assert defended.notes == ()


def test_only_label_only_hides_the_scores() -> None:
    assert [chosen(name).hides_scores for name in NAMES] == [False, False, False, False, True]


@pytest.mark.parametrize(("access", "expected"), [("white-box", True), ("score", False), ("label", False)])
def test_whoever_has_the_weights_gets_round_them(access: Access, expected: bool) -> None:
    assert [is_bypassed(chosen(name), access) for name in NAMES] == 5 * [expected]
    assert not is_bypassed(NoDefence(), access)
    assert not is_bypassed(DpSgd(1.1), access)


@pytest.mark.parametrize(
    ("name", "strength", "message"),
    [
        ("rounding", 1.5, "rounding, strength 1.5: give a whole number of decimals, 0 or more"),
        ("rounding", -1.0, "rounding, strength -1: give a whole number of decimals, 0 or more"),
        ("top-k", 0.0, "top-k, strength 0: give a whole number of scores, 1 or more"),
        ("top-k", float("inf"), "top-k, strength inf: give a whole number of scores, 1 or more"),
        ("temperature", 1.0, "temperature, strength 1: give a temperature above 1"),
        ("temperature", float("inf"), "temperature, strength inf: give a temperature above 1"),
        ("noise", 0.0, "noise, strength 0: give a standard deviation above 0"),
        ("noise", float("nan"), "noise, strength nan: give a standard deviation above 0"),
        ("label-only", 0.5, "label-only, strength 0.5: has no strength; leave it out"),
    ],
)
def test_wrong_strengths_are_refused_in_one_line(name: str, strength: float, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        choose_defence(name, strength)
