"""The doors of a black box: every image is counted, and nothing but answers comes out."""

import gc
import types

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from jaxtyping import TypeCheckError
from torch import nn

from patchmi.networks import ARCHITECTURES
from patchmi.runs import Journal
from patchmi.target import BudgetSpent, LabelAccess, OutputMode, ScoreAccess, Target, oracle_of
from patchmi.target.black_box import shown_scores

SHAPE = (1, 4, 4)
NAMES = ("dark", "grey", "light")
DOORS = {"score": ScoreAccess, "label": LabelAccess}
every_door = pytest.mark.parametrize("kind", DOORS)


class Asked:
    """An oracle that tells dark from light, and keeps its own account."""

    def __init__(self) -> None:
        self.images: list[bytes] = []

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        self.images += [image.numpy().tobytes() for image in images]
        light = images.float().mean(dim=(1, 2, 3)) / 255
        return torch.stack([1 - light, 0.6 * torch.ones_like(light), light], dim=1).softmax(dim=1)


def plain(*values: int) -> torch.Tensor:
    """Images of one grey each, 8 bits a pixel."""
    return torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, *SHAPE).clone()


def make_door(kind: str, oracle=None, *, budget: int = 100, **options):
    return DOORS[kind](oracle or Asked(), class_names=NAMES, image_shape=SHAPE, budget=budget, **options)


def ask(door, images: torch.Tensor, stage: str = "look") -> torch.Tensor:
    return (
        door.scores(images, stage=stage)
        if isinstance(door, ScoreAccess)
        else door.labels(images, stage=stage)
    )


def test_labels_and_scores_are_the_oracle_s():
    images = plain(0, 128, 255)
    scores = ask(make_door("score"), images)
    torch.testing.assert_close(scores, Asked()(images))
    assert ask(make_door("label"), images).tolist() == [0, 1, 2]


@every_door
def test_every_image_is_counted_by_stage_and_answer_and_repeats_apart(kind):
    oracle = Asked()
    door = make_door(kind, oracle, batch_size=2)
    ask(door, plain(0, 10, 255), "public")
    ask(door, plain(0, 20, 20, 128), "views")
    account = door.account
    assert (account.asked, account.repeated, door.left) == (5, 2, 95)
    assert account.stages == {"public": 3, "views": 2}
    assert account.answered == [3, 1, 1]
    assert account.calls == 3
    assert len(oracle.images) == len(set(oracle.images)) == door.sent_count == 5


@every_door
def test_no_images_are_no_question(kind):
    door = make_door(kind)
    assert len(ask(door, plain())) == 0
    assert (door.account.asked, door.account.calls) == (0, 0)


@every_door
def test_a_door_without_memory_pays_for_every_repeat(kind):
    oracle = Asked()
    door = make_door(kind, oracle, remembers=False)
    for _ in range(3):
        ask(door, plain(0, 0))
    assert (door.account.asked, door.account.repeated, len(oracle.images)) == (6, 0, 6)


@every_door
def test_the_budget_is_hard_and_a_refused_call_asks_nothing(kind):
    oracle = Asked()
    door = make_door(kind, oracle, budget=3)
    ask(door, plain(1, 2))
    with pytest.raises(BudgetSpent, match=r"budget is 3 images, 2 were sent and 2 more .* larger --budget"):
        ask(door, plain(1, 3, 4))
    assert (door.account.asked, door.account.repeated, len(oracle.images)) == (2, 0, 2)
    ask(door, plain(1, 3))
    assert door.left == 0
    ask(door, plain(1, 2, 3))
    assert len(oracle.images) == 3


@every_door
def test_what_does_not_fit_is_refused(kind):
    with pytest.raises(
        ValueError, match=r"a black box takes 8 bits a pixel, torch.uint8, of shape \(1, 4, 4\)"
    ):
        ask(make_door(kind), torch.zeros(2, 3, 4, 4, dtype=torch.uint8))
    # Floating point, through which a gradient could flow: type checkers see it, and so does the door.
    with pytest.raises((ValueError, TypeCheckError)):
        ask(make_door(kind), torch.rand(2, *SHAPE, requires_grad=True))


def reached_from(door) -> list[object]:
    """All that lies within a door, but for functions, classes and modules of Python."""
    seen, stack = {}, [door]
    while stack:
        thing = stack.pop()
        if id(thing) in seen or isinstance(
            thing, type | types.ModuleType | types.FunctionType | types.MethodType
        ):
            continue
        seen[id(thing)] = thing
        stack += gc.get_referents(thing)
    return list(seen.values())


@every_door
def test_no_network_gradient_or_buffer_is_reached_through_a_door(kind):
    torch.manual_seed(0)
    model = ARCHITECTURES["resnet10"](class_count=3, channel_count=1, width=4).eval()
    weights = [*model.parameters(), *model.buffers()]
    before = [weight.clone() for weight in weights]
    target = Target(model, NAMES, SHAPE)
    door = make_door(kind, oracle_of(target))
    answers = ask(door, plain(0, 50, 100))
    assert not answers.requires_grad
    assert all(weight.grad is None for weight in model.parameters())
    assert all(torch.equal(one, other) for one, other in zip(weights, before, strict=True))
    within = reached_from(door)
    assert not any(isinstance(thing, nn.Module | Target) for thing in within)
    tensors = [thing for thing in within if isinstance(thing, torch.Tensor)]
    assert tensors, "the answers, at least, are there"
    assert not any(tensor.requires_grad for tensor in tensors)
    if kind == "label":
        assert all(tensor.shape == (1,) and float(tensor).is_integer() for tensor in tensors)


def test_a_target_at_hand_answers_its_softmax():
    torch.manual_seed(0)
    model = ARCHITECTURES["lenet"](class_count=3, channel_count=1, width=4).eval()
    images = torch.randint(256, (5, *SHAPE), dtype=torch.uint8)
    with torch.no_grad():
        expected = model(images / 255).softmax(dim=1)
    torch.testing.assert_close(oracle_of(Target(model, NAMES, SHAPE))(images), expected)


# Modes


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        (OutputMode(), [0.16, 0.47, 0.37]),
        (OutputMode(top_k=1), [0, 0.47, 0]),
        (OutputMode(top_k=2), [0, 0.47, 0.37]),
        (OutputMode(top_k=9), [0.16, 0.47, 0.37]),
        (OutputMode(decimals=1), [0.2, 0.5, 0.4]),
        (OutputMode(decimals=0), [0, 0, 0]),
        (OutputMode(temperature=2.0), [0.4 / 1.69383, 0.68557 / 1.69383, 0.60828 / 1.69383]),
        (OutputMode(decimals=1, top_k=2), [0, 0.5, 0.4]),
    ],
)
def test_a_mode_shows_what_it_says(mode, expected):
    torch.testing.assert_close(
        shown_scores(torch.tensor([[0.16, 0.47, 0.37]]), mode),
        torch.tensor([expected]).float(),
        atol=1e-4,
        rtol=0,
    )


@given(
    top_k=st.none() | st.integers(1, 5),
    decimals=st.none() | st.integers(0, 4),
    temperature=st.floats(0.1, 20),
    seed=st.integers(0, 1000),
)
def test_labels_do_not_depend_on_rounding_top_k_and_temperature(top_k, decimals, temperature, seed):
    images = torch.randint(
        256, (20, *SHAPE), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )
    mode = OutputMode(top_k=top_k, decimals=decimals, temperature=temperature)
    assert ask(make_door("label", mode=mode), images).equal(ask(make_door("label"), images))


def test_noise_is_drawn_anew_for_every_question_and_averages_out():
    images = plain(*[90] * 400)
    door = make_door("score", budget=1000, mode=OutputMode(noise=0.05), remembers=False, batch_size=50)
    noisy, clean = ask(door, images), Asked()(images[:1])
    assert len(noisy.unique(dim=0)) == 400
    torch.testing.assert_close(noisy.mean(dim=0), clean[0], atol=0.01, rtol=0)
    assert float(noisy.std(dim=0).mean()) == pytest.approx(0.05, rel=0.15)
    again = make_door("score", budget=1000, mode=OutputMode(noise=0.05), remembers=False, batch_size=50)
    assert ask(again, images).equal(noisy)
    other = make_door("score", budget=1000, mode=OutputMode(noise=0.05), remembers=False, seed=1)
    assert not ask(other, images).equal(noisy)
    # 90 lies near the border of dark and grey
    labels = ask(make_door("label", budget=400, mode=OutputMode(noise=0.05), remembers=False), images)
    assert len(labels.unique()) > 1


@pytest.mark.parametrize(
    "wrong", [{"top_k": 0}, {"decimals": -1}, {"noise": -0.1}, {"temperature": 0.0}, {"noise": float("nan")}]
)
def test_modes_that_there_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match=r"give .* or more"):
        OutputMode(**wrong)


# Records


@pytest.mark.parametrize("remembers", [True, False])
@every_door
def test_killed_after_its_checkpoint_it_asks_nothing_twice(kind, remembers, tmp_path):
    """The process dies between the last checkpoint and the last answer; another goes on from there."""
    steps = [plain(*range(start, start + 5), 3) for start in range(0, 60, 4)]
    mode = OutputMode(noise=0.01)
    undisturbed = make_door(kind, remembers=remembers, mode=mode)
    expected = [ask(undisturbed, images, f"stage {number % 2}") for number, images in enumerate(steps)]
    first = make_door(kind, oracle := Asked(), remembers=remembers, mode=mode, record=Journal(tmp_path / "q"))
    made = [ask(first, images, f"stage {number % 2}") for number, images in enumerate(steps[:9])]
    state = first.state()
    for number, images in enumerate(steps[9:12], start=9):
        ask(first, images, f"stage {number % 2}")
    second = make_door(kind, oracle, remembers=remembers, mode=mode, record=Journal(tmp_path / "q"))
    second.restore(state)
    asked_before = len(oracle.images)
    made += [ask(second, images, f"stage {number % 2}") for number, images in enumerate(steps[9:12], start=9)]
    assert len(oracle.images) == asked_before
    made += [ask(second, images, f"stage {number % 2}") for number, images in enumerate(steps[12:], start=12)]
    assert all(one.equal(other) for one, other in zip(made, expected, strict=True))
    assert second.account == undisturbed.account
    assert len(oracle.images) == second.sent_count == undisturbed.account.asked


def test_what_a_lost_process_asked_counts_towards_the_budget(tmp_path):
    """A process that goes another way after the kill cannot send more than the budget in all."""
    oracle = Asked()
    first = make_door("label", oracle, budget=10, record=Journal(tmp_path / "q"))
    state = first.state()
    ask(first, plain(*range(8)))
    second = make_door("label", oracle, budget=10, record=Journal(tmp_path / "q"))
    second.restore(state)
    ask(second, plain(100, 101))
    with pytest.raises(BudgetSpent):
        ask(second, plain(102))
    ask(second, plain(*range(8)))
    assert len(oracle.images) == 10


def test_a_record_that_is_shorter_than_the_checkpoint_says_is_refused(tmp_path):
    first = make_door("label", record=Journal(tmp_path / "q"))
    ask(first, plain(1, 2, 3))
    with pytest.raises(ValueError, match="holds 0 answers, the checkpoint counts 3"):
        make_door("label", record=Journal(tmp_path / "other")).restore(first.state())
