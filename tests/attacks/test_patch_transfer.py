"""PatchTransfer: students learn a black box within its budget, and stand in for it."""

import dataclasses
import math
from functools import partial

import pytest
import torch
from torch import nn

from patchmi.attacks import RECIPES, ClassPatchScale, PatchTransfer
from patchmi.attacks.base import to_bytes
from patchmi.attacks.patch_transfer import GENERATED, NO_VOTE_NOTE, PUBLIC, VOTES
from patchmi.attacks.surrogate import Surrogate, even_shares
from patchmi.target import (
    AccessDenied,
    LabelAccess,
    OutputMode,
    ScoreAccess,
    Target,
    WhiteBox,
    answer_of,
    oracle_of,
)
from patchmi.types import silent
from patchmi.views import IDENTITY

NAMES = ("a", "b", "c", "d")
SHAPE = (1, 16, 16)
THIN = dataclasses.replace(RECIPES["default"], scales=(ClassPatchScale(width=8),), generator_width=4)
SHORT = PatchTransfer(THIN, step_count=10, student_width=4, fit_step_count=3)
DOORS = {"label": LabelAccess, "score": ScoreAccess}


@pytest.fixture(scope="module")
def target(fit) -> Target:
    return Target(fit("resnet10", width=4), class_names=NAMES, image_shape=SHAPE)


@pytest.fixture(scope="module")
def public(blobs) -> torch.Tensor:
    return blobs(200, seed=3)


def open_door(target: Target, kind: str = "label", *, budget: int = 400, **options):
    return DOORS[kind](oracle_of(target), class_names=NAMES, image_shape=SHAPE, budget=budget, **options)


def make_surrogate(door, **options) -> Surrogate:
    settings = {
        "architectures": ("vgg6", "lenet"),
        "width": 8,
        "learning_rate": 3e-3,
        "views": IDENTITY,
        **options,
    }
    return Surrogate(door, **settings)


# Students


def test_students_of_labels_learn_what_the_target_knows(target, quarters):
    images, truth = quarters(200, seed=61)
    surrogate = make_surrogate(open_door(target))
    before = (surrogate.logits(images).argmax(dim=1) == truth).float().mean()
    torch.manual_seed(0)
    surrogate.ask(images[:100], stage="look")
    surrogate.fit(60, silent, "learn")
    after = (surrogate.logits(images[100:]).argmax(dim=1) == truth[100:]).float().mean()
    assert before < 0.6
    assert after > 0.9


def test_answers_are_shares_of_classes_through_either_door(target, quarters):
    images = to_bytes(quarters(20, seed=62)[0])
    scores = answer_of(open_door(target, "score"), images, stage="look")
    labels = answer_of(open_door(target, "label"), images, stage="look")
    torch.testing.assert_close(scores, oracle_of(target)(images))
    assert torch.equal(labels, nn.functional.one_hot(scores.argmax(dim=1), 4).float())


def test_it_asks_no_further_than_the_budget_goes(target, public):
    door = open_door(target, budget=30)
    surrogate = make_surrogate(door)
    surrogate.ask(public[:20], stage="look")
    surrogate.ask(public[20:80], stage="look")
    assert len(surrogate.images) == len(surrogate.answers) == door.account.asked == 30
    surrogate.ask(public[80:90], stage="look")
    assert len(surrogate.images) == 30


def test_a_class_that_is_hardly_ever_answered_is_learnt_as_often_as_the_others(target, monkeypatch):
    surrogate = make_surrogate(open_door(target))
    surrogate.images = torch.arange(100, dtype=torch.uint8)[:, None, None, None].expand(-1, *SHAPE).clone()
    labels = torch.tensor([3] * 2 + [0] * 98)
    surrogate.answers = nn.functional.one_hot(labels, 4).float()
    surrogate.stages = torch.zeros(100, dtype=torch.long)
    seen = []
    views = dataclasses.replace(IDENTITY, transform=Watch(seen))
    surrogate.views = views
    torch.manual_seed(0)
    for _ in range(20):
        surrogate.learn()
    shown = (torch.cat(seen)[:, 0, 0, 0] * 255).round().long()
    assert 0.45 < (shown < 2).float().mean() < 0.55


class Watch(nn.Module):
    """A transform that changes nothing and keeps what it sees."""

    def __init__(self, seen: list[torch.Tensor]) -> None:
        super().__init__()
        self.seen = seen

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return images


def test_their_word_is_the_mean_of_log_probabilities_and_costs_nothing(target, public):
    door = open_door(target)
    surrogate = make_surrogate(door)
    each = [student(public[:9]).log_softmax(dim=1) for student in surrogate.networks]
    torch.testing.assert_close(surrogate.logits(public[:9]), (each[0] + each[1]) / 2)
    assert door.account.asked == 0
    logits, moments = surrogate.logits_and_moments(public[:9].requires_grad_())
    assert logits.requires_grad
    assert moments == []


def test_disagreement_is_the_jensen_shannon_divergence(target, public):
    surrogate = make_surrogate(open_door(target))
    found = surrogate.disagreement(public[:6])
    for image, one in zip(public[:6], found, strict=True):
        p, q = (student(image[None]).softmax(dim=1)[0].tolist() for student in surrogate.networks)
        middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
        parts = [sum(a * math.log(a / m) for a, m in zip(shares, middle, strict=True)) for shares in (p, q)]
        assert float(one) == pytest.approx(sum(parts) / 2, abs=1e-5)


# The attack


@pytest.mark.parametrize("kind", DOORS)
def test_the_budget_is_spent_by_its_shares(target, public, kind):
    door = open_door(target, kind, budget=600)
    made = SHORT(door, public, count_per_class=3)
    stages = door.account.stages
    assert set(stages) == {PUBLIC, GENERATED, VOTES}
    # 200 public images, some bred of them: what was sent before is free
    assert 180 <= stages[PUBLIC] <= 360
    # a tenth, 60, is 3 copies of 4 classes × 4 candidates; what that leaves is the generator's too
    assert 0.9 * 48 <= stages[VOTES] <= 48
    assert 0.9 * 192 <= stages[GENERATED] <= 192
    assert sum(stages.values()) == door.account.asked <= 600
    asked = [snapshot.queries for snapshot in made.snapshots]
    assert asked == sorted(asked)
    assert asked[0] == stages[PUBLIC]
    assert asked[-1] == stages[PUBLIC] + stages[GENERATED]


def test_whoever_waits_for_a_slow_target_sees_how_far_it_is(target, public):
    door = open_door(target, budget=600, batch_size=20)
    sent: dict[str, list[int]] = {}

    def progress(steps, description):
        for step in steps:
            before = door.account.asked
            yield step
            sent.setdefault(description, []).append(door.account.asked - before)

    SHORT(door, public, count_per_class=3, progress=progress)
    asking = {name: counts for name, counts in sent.items() if name.startswith("Public images are asked")}
    assert list(asking) == [f"Public images are asked about, {number} of 3" for number in (1, 2, 3)]
    assert max(max(counts) for counts in asking.values()) == 20
    assert sum(sum(counts) for counts in asking.values()) == door.account.stages[PUBLIC]
    votes = sent["The target votes on the final images"]
    assert len(votes) == 3
    assert sum(votes) == door.account.stages[VOTES]


def test_without_a_budget_for_votes_the_students_alone_choose_and_it_is_said(target, public):
    door = open_door(target, budget=60)
    made = SHORT(door, public, count_per_class=10)
    assert NO_VOTE_NOTE in made.notes
    assert VOTES not in door.account.stages
    # what a vote would have cost is the generator's
    assert door.account.stages[GENERATED] >= 0.35 * 60


@pytest.mark.parametrize("budget", [1, 7])
def test_next_to_no_budget_is_spent_and_answered_with_pictures(target, public, budget):
    door = open_door(target, budget=budget)
    made = SHORT(door, public, count_per_class=2)
    assert 1 <= door.account.asked <= budget
    assert len(made.images) == 8


def test_copies_that_are_voted_on_are_as_many_as_their_share_pays_for():
    copies = partial(SHORT.vote_copies, class_count=10, count_per_class=200)
    assert [copies(budget) for budget in (24_999, 25_000, 60_000, 10**6)] == [0, 1, 2, 8]
    assert SHORT.without_target().vote_copies(10**6, class_count=10, count_per_class=200) == 0


def test_every_stage_has_its_share_of_a_lesson_and_in_it_every_class():
    labels = torch.tensor([0, 0, 0, 1, 0, 2])
    shares = even_shares(labels, torch.tensor([0, 0, 0, 0, 1, 1]))
    torch.testing.assert_close(shares, torch.tensor([1 / 12, 1 / 12, 1 / 12, 1 / 4, 1 / 4, 1 / 4]))


def test_the_vote_keeps_what_the_target_takes_for_the_class(target, public):
    attack = dataclasses.replace(
        SHORT, public_share=0.1, vote_share=0.8, step_count=30, fit_step_count=30, student_width=8
    )
    chosen = attack(open_door(target, budget=3200), public, count_per_class=20)

    def rate(images: torch.Tensor, labels: torch.Tensor) -> float:
        return float((oracle_of(target)(to_bytes(images)).argmax(dim=1) == labels).float().mean())

    assert chosen.unselected is not None
    assert chosen.unselected.shape == chosen.images.shape
    assert rate(chosen.images, chosen.labels) > rate(chosen.unselected, chosen.labels)


@pytest.mark.parametrize("mode", [OutputMode(decimals=1), OutputMode(top_k=1), OutputMode(temperature=9.0)])
def test_with_labels_rounding_top_k_and_temperature_change_not_a_byte(target, public, mode):
    plain = SHORT(open_door(target, budget=120), public, count_per_class=2)
    moded = SHORT(open_door(target, budget=120, mode=mode), public, count_per_class=2)
    assert torch.equal(moded.images, plain.images)


def test_without_the_target_nothing_is_asked(target, public):
    door = open_door(target)
    made = SHORT.without_target()(door, public, count_per_class=2)
    assert door.account.asked == 0
    assert made.notes == ()


def test_without_the_target_two_images_of_a_class_must_differ_all_the_same(target):
    heard = []
    public = torch.arange(2.0).reshape(-1, 1, 1, 1).expand(-1, *SHAPE)
    SHORT.without_target()(open_door(target), public, observe=lambda _, losses: heard.append(losses))
    # Black and white are 2 apart, every other pair is of both; what a generator draws at first is alike.
    assert heard[0]["diversity"] > 0.2


def test_layouts_are_given_only_if_they_are_asked_for():
    assert PatchTransfer().settings().layouts == "never"
    asked = dataclasses.replace(RECIPES["default"], layouts="always")
    assert PatchTransfer(asked).settings().layouts == "always"


def test_it_wants_a_black_box_and_says_so(target, public):
    with pytest.raises(AccessDenied, match="PatchTransfer needs label or score access, not white-box"):
        SHORT(WhiteBox(target), public)


@pytest.mark.parametrize(
    ("settings", "remedy"),
    [
        ({"public_share": 0.0}, "must leave some"),
        ({"public_share": 0.7, "vote_share": 0.3}, "must leave some"),
        ({"vote_share": -0.1}, "must leave some"),
        ({"fit_step_count": 0}, "fit_step_count is 0"),
        ({"step_count": 0}, "step_count is 0"),
        ({"students": ("vgg6",)}, "give two or more"),
        ({"students": ("vgg6", "vgg7")}, "students: there is no vgg7"),
    ],
)
def test_settings_that_there_cannot_be_are_refused(settings, remedy):
    with pytest.raises(ValueError, match=remedy):
        PatchTransfer(**settings)
