"""What a target is asked before an audit, and whether it is read as it was trained."""

import copy
import math
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.networks import ARCHITECTURES
from patchmi.target import (
    Target,
    TargetInvalid,
    TargetMisread,
    WhiteBox,
    answers,
    check_accuracy,
    probe_target,
)

SIDE = 16
NO_BATCH_NORM = "No batch-norm layer remembers statistics: attacks run without that term."


class Linear(nn.Module):
    """Four scores, one a quarter of the rows, and what becomes of them."""

    def __init__(
        self, after: Callable[[torch.Tensor], Any] = lambda scores: scores, gain: float = 3.0
    ) -> None:
        super().__init__()
        self.layer = nn.Linear(SIDE * SIDE, 4)
        self.after = after
        with torch.no_grad():
            self.layer.bias.zero_()
            self.layer.weight.copy_(torch.eye(4).repeat_interleave(SIDE * SIDE // 4, dim=1) * gain / SIDE)

    def forward(self, images: torch.Tensor) -> Any:
        return self.after(self.layer(images.flatten(1)))


def target_of(model: nn.Module, **changes: Any) -> Target:
    return Target(model, **{"class_names": ("a", "b", "c", "d"), "image_shape": (1, SIDE, SIDE)} | changes)


def own_model(name: str = "resnet10") -> nn.Module:
    torch.manual_seed(0)
    model = ARCHITECTURES[name](class_count=4, channel_count=1, width=8)
    with torch.no_grad():
        model.train()(pictures(8))
    return model.eval()


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(5))


def findings_of(model: nn.Module, **changes: Any) -> list[str]:
    return list(probe_target(target_of(model, **changes))[1])


def refusal(model: nn.Module, **changes: Any) -> str:
    with pytest.raises(TargetInvalid) as refused:
        probe_target(target_of(model, **changes))
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith("target: ")
    return str(refused.value)


# What is found


def test_an_ordinary_classifier_comes_back_as_it_was():
    target = target_of(own_model())
    assert probe_target(target) == (
        target,
        ("12 batch-norm layers remember statistics of the training images.",),
    )
    target = target_of(own_model("lenet"))
    assert probe_target(target) == (target, (NO_BATCH_NORM,))


def test_the_user_s_module_is_bit_identical_afterwards():
    model = own_model().train()
    model.get_submodule("trunk.0").eval()
    next(iter(model.parameters())).requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    modes = [layer.training for layer in model.modules()]
    asked = [weight.requires_grad for weight in model.parameters()]
    random = torch.get_rng_state()
    probe_target(target_of(model))
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [layer.training for layer in model.modules()] == modes
    assert [weight.requires_grad for weight in model.parameters()] == asked
    assert all(weight.grad is None for weight in model.parameters())
    assert not any(layer._forward_hooks or layer._forward_pre_hooks for layer in model.modules())
    assert torch.equal(torch.get_rng_state(), random)


def test_training_mode_and_frozen_parameters_are_noted():
    model = Linear().train()
    model.layer.bias.requires_grad_(False)
    assert findings_of(model) == [
        "The model came in training mode: it is asked in evaluation mode.",
        "1 of the model's 2 parameters are frozen, which attacks do not need.",
        NO_BATCH_NORM,
    ]


def test_probabilities_are_recognised_and_their_logarithm_is_used():
    plain = Linear().eval()
    target, findings = probe_target(target_of(Linear(lambda scores: scores.softmax(dim=1)).eval()))
    assert target.gives_probabilities
    assert "The model answers probabilities: their logarithm is used as logits." in findings
    expected = plain(pictures(5)).log_softmax(dim=1)
    assert torch.allclose(answers(target, pictures(5)), expected, atol=1e-4)
    assert torch.allclose(WhiteBox(target).logits(pictures(5)), expected, atol=1e-4)
    assert probe_target(target) == (target, findings)


@pytest.mark.parametrize(
    "after",
    [lambda scores: scores.log_softmax(dim=1), lambda scores: scores, lambda scores: scores.sigmoid()],
)
def test_what_does_not_sum_to_one_is_no_probability(after):
    target, _ = probe_target(target_of(Linear(after).eval()))
    assert not target.gives_probabilities


def test_sigmoids_are_noted():
    assert any("sigmoids?" in finding for finding in findings_of(Linear(torch.sigmoid).eval()))


def test_probabilities_that_were_only_said_to_be_are_taken_as_logits():
    target, findings = probe_target(target_of(Linear().eval(), gives_probabilities=True))
    assert not target.gives_probabilities
    assert any("was said to answer probabilities" in finding for finding in findings)


@pytest.mark.parametrize(
    ("after", "name"),
    [
        (lambda scores: (scores, 1), "tuple"),
        (lambda scores: [scores], "list"),
        (lambda scores: {"logits": scores}, "dict"),
        (lambda scores: SimpleNamespace(logits=scores), "SimpleNamespace"),
    ],
)
def test_a_wrapped_answer_is_reported(after, name):
    assert f"The model answers {name}: the scores in it are used." in findings_of(Linear(after).eval())


@pytest.mark.parametrize("numbers", [torch.float16, torch.float64, torch.bfloat16])
def test_other_number_formats_are_audited_as_a_copy_in_float32(numbers):
    model = Linear().eval().to(numbers)
    target, findings = probe_target(target_of(model))
    name = str(numbers).removeprefix("torch.")
    assert f"The model's weights are {name}: a copy in float32 is audited." in findings
    assert {weight.dtype for weight in model.parameters()} == {numbers}
    expected = Linear().eval()(pictures(3))
    assert torch.allclose(answers(target, pictures(3)), expected, atol=2e-2, rtol=1e-2)
    assert WhiteBox(target).logits(pictures(3)).dtype == torch.float32


def test_randomness_in_the_answers_is_noted():
    model = Linear(lambda scores: F.dropout(scores, training=True)).eval()
    random = torch.get_rng_state()
    findings = findings_of(model)
    assert torch.equal(torch.get_rng_state(), random)
    assert any("answers differently when asked again" in finding for finding in findings)


def test_answers_that_depend_on_the_batch_are_noted():
    model = nn.Sequential(Linear(), nn.BatchNorm1d(4, track_running_stats=False)).eval()
    with pytest.raises(TargetInvalid, match=r"Expected more than 1 value.*must answer one alone too"):
        probe_target(target_of(model))
    model = Linear(lambda scores: scores - scores.mean(dim=0) * 0.5).eval()
    assert any("depends on the others in the batch" in finding for finding in findings_of(model))


@pytest.mark.parametrize(
    "after",
    [
        lambda scores: scores.detach(),
        lambda scores: scores.round() * 1.0,
        lambda scores: F.one_hot(scores.argmax(dim=1), 4).float() * 5 - 1,
        lambda scores: torch.from_numpy(scores.numpy() * 2),
    ],
    ids=["detached", "rounded", "argmax", "numpy"],
)
def test_a_model_without_gradient_grants_scores_only(after):
    target, findings = probe_target(target_of(Linear(after, gain=30.0).eval()))
    assert target.access == "score"
    assert "No gradient reaches the pixels: attacks on this target can use its scores only." in findings


def test_a_gradient_that_fails_on_black_images_only_is_one():
    model = nn.Sequential(Root(), Linear()).eval()
    assert probe_target(target_of(model))[0].access == "white-box"


class Root(nn.Module):
    """Its slope at black is infinite."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.sqrt()


def test_frozen_weights_let_the_gradient_through():
    target, _ = probe_target(target_of(own_model().requires_grad_(False)))
    assert target.access == "white-box"


def test_access_that_a_user_restricts_stays_restricted():
    target, findings = probe_target(target_of(own_model(), access="label"))
    assert (target.access, findings) == ("label", ())


def test_mean_and_std_are_applied_before_the_model_is_asked():
    class Narrow(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            assert -1 <= float(images.detach().min()) < -0.9
            assert 0.9 < float(images.detach().max()) <= 1
            return images.flatten(1)[:, :4]

    findings_of(Narrow(), mean=(0.5,), std=(0.5,))


# What is refused


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_answers_that_are_no_numbers_are_refused(value):
    assert "NaN or infinity" in refusal(Linear(lambda scores: scores + value).eval())


@pytest.mark.parametrize(
    "after",
    [lambda scores: scores * 0 + 1, lambda scores: (scores * 0).softmax(dim=1)],
    ids=["logits", "probabilities"],
)
def test_a_model_that_answers_the_same_to_everything_is_refused_with_a_hint(after):
    assert "are the weights those of a training" in refusal(Linear(after).eval())


def test_a_class_count_that_is_not_the_names_is_refused():
    assert "answers 4 scores an image, and there are 3 class names" in refusal(
        Linear(), class_names=("a", "b", "c")
    )


def test_a_single_score_is_no_classifier():
    said = refusal(Linear(lambda scores: scores[:, :1]), class_names=("a",))
    assert "answers 1 scores an image" in said


@pytest.mark.parametrize(
    ("model", "shape", "words"),
    [
        (Linear(), (1, 20, 20), "fails on images of 12×1×20×20"),
        (own_model(), (3, SIDE, SIDE), "its first convolution takes 1 channels, not 3"),
    ],
)
def test_a_wrong_image_shape_is_named(model, shape, words):
    said = refusal(model.eval(), image_shape=shape)
    assert words in said
    assert "give the --image-shape it was trained on" in said


@pytest.mark.parametrize(
    ("after", "words"),
    [
        (lambda scores: scores.squeeze(0), "answers 4 to images of 1×1×16×16"),
        (lambda scores: scores[None], "answers 1×12×4"),
        (lambda scores: scores.sum(), "answers one number"),
        (lambda scores: None, "the model answers NoneType: it must answer logits"),
    ],
)
def test_an_answer_of_another_shape_is_named(after, words):
    assert words in refusal(Linear(after).eval())


def test_a_module_that_cannot_be_copied_is_refused():
    model = Linear()
    setattr(model, "lock", threading.Lock())  # noqa: B010 - modules declare what is set on them
    assert "cannot be copied" in refusal(model)


# Accuracy


class Reads(nn.Module):
    """Answers the class that the first pixel of an image says, of so many."""

    def __init__(self, class_count: int) -> None:
        super().__init__()
        self.class_count = class_count

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        said = (images[:, 0, 0, 0] * self.class_count).floor().clamp(0, self.class_count - 1).long()
        return F.one_hot(said, self.class_count).float()


def reading(class_count: int, *, image_count: int, correct: int) -> tuple[Target, torch.Tensor, torch.Tensor]:
    """A target that is right about so many of the images: of the others it says the next class."""
    labels = torch.arange(image_count) % class_count
    said = torch.where(torch.arange(image_count) < correct, labels, (labels + 1) % class_count)
    images = ((said + 0.5) / class_count).reshape(-1, 1, 1, 1).expand(-1, 1, 2, 2)
    names = tuple(str(label) for label in range(class_count))
    return Target(Reads(class_count), names, (1, 2, 2)), images, labels


def test_the_accuracy_is_measured_and_said():
    target, images, labels = reading(10, image_count=200, correct=150)
    check = check_accuracy(target, images=images, labels=labels, declared=0.76)
    assert (check.accuracy, check.image_count) == (0.75, 200)
    assert check.finding == "The target's accuracy on 200 held-out images is 0.75, declared was 0.76."


@pytest.mark.parametrize("declared", [0.9, 0.5, 1.0])
def test_below_the_declared_accuracy_an_exact_binomial_test_at_one_in_a_thousand_decides(declared):
    """The oracle adds up the chances of so many or fewer hits."""
    count = 60
    hits = [math.comb(count, k) * declared**k * (1 - declared) ** (count - k) for k in range(count + 1)]
    for correct in range(0, count + 1, 3):
        target, images, labels = reading(10, image_count=count, correct=correct)
        if sum(hits[: correct + 1]) < 1e-3:
            with pytest.raises(TargetMisread, match=r"on 60 held-out images is"):
                check_accuracy(target, images=images, labels=labels, declared=declared)
        else:
            assert (
                check_accuracy(target, images=images, labels=labels, declared=declared).accuracy
                == correct / count
            )


@pytest.mark.parametrize(("class_count", "least"), [(10, 20), (4, 50), (3, 67), (2, 75)])
def test_nothing_declared_twice_guessing_decides(class_count, least):
    target, images, labels = reading(class_count, image_count=100, correct=least)
    assert check_accuracy(target, images=images, labels=labels, declared=None).accuracy == least / 100
    target, images, labels = reading(class_count, image_count=100, correct=least - 1)
    with pytest.raises(TargetMisread):
        check_accuracy(target, images=images, labels=labels, declared=None)


@pytest.mark.parametrize("labels", [[0, 9], [-1, 0]])
def test_labels_without_a_class_are_refused(labels):
    target, images, _ = reading(4, image_count=2, correct=2)
    with pytest.raises(TargetInvalid, match="has 4 classes, the images have labels from"):
        check_accuracy(target, images=images, labels=torch.tensor(labels), declared=None)


def test_without_images_there_is_no_accuracy():
    target, images, labels = reading(4, image_count=2, correct=2)
    with pytest.raises(TargetInvalid, match="no held-out image"):
        check_accuracy(target, images=images[:0], labels=labels[:0], declared=None)


class Brightness(nn.Module):
    """Tells four levels of brightness of the first channel apart, in images shown in another way."""

    def __init__(self, undo: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.undo = undo

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        brightness = self.undo(images)[:, 0].mean(dim=(1, 2))
        return -50 * (brightness[:, None] - torch.tensor([0.125, 0.375, 0.625, 0.875])).square()


def scaled(mean: list[float], std: list[float]) -> Callable[[torch.Tensor], torch.Tensor]:
    shape = (-1, 1, 1)
    return lambda images: images * torch.tensor(std).reshape(shape) + torch.tensor(mean).reshape(shape)


MISREAD: list[tuple[int, dict[str, Any], Callable[[torch.Tensor], torch.Tensor], str]] = [
    (1, {}, scaled([0.5], [0.5]), "with mean 0.5 and std 0.5"),
    (3, {}, scaled([0.5] * 3, [0.5] * 3), "with mean 0.5 0.5 0.5 and std 0.5 0.5 0.5"),
    (1, {"mean": (0.9,), "std": (0.05,)}, lambda images: images, "with mean 0 and std 1"),
    (1, {}, lambda images: images / 255, "with mean 0 and std 0.003922"),
    (1, {}, lambda images: 1 - images, "on images inverted with mean 0 and std 1"),
    (3, {}, lambda images: images.flip(1), "on images blue first with mean 0 0 0 and std 1 1 1"),
]


@pytest.mark.parametrize(("channel_count", "said", "undo", "words"), MISREAD)
def test_the_reading_that_a_target_was_trained_for_is_found_and_named(channel_count, said, undo, words):
    labels = torch.arange(200) % 4
    random = torch.Generator().manual_seed(0)
    levels = (labels + 0.3 + 0.4 * torch.rand(200, generator=random)) / 4
    images = levels.reshape(-1, 1, 1, 1).expand(-1, 1, 8, 8)
    if channel_count == 3:
        images = torch.cat(
            [images, images[torch.randperm(200, generator=random)].expand(-1, 2, -1, -1)], dim=1
        )
    target = Target(Brightness(undo), ("a", "b", "c", "d"), (channel_count, 8, 8), **said)
    with pytest.raises(
        TargetMisread, match="too low, as of a target that sees images in another way"
    ) as misread:
        check_accuracy(target, images=images, labels=labels, declared=0.98)
    assert f"{words} it is 1: give --mean " in str(misread.value)
    assert "\n" not in str(misread.value)


@pytest.mark.parametrize("channel_count", [1, 3])
def test_of_readings_that_do_equally_well_the_plainest_is_named(channel_count):
    """Black and white can be told apart in nearly every scale, and in any order of channels."""
    labels = torch.arange(200) % 2 * 3
    images = (0.125 + labels / 4).reshape(-1, 1, 1, 1).expand(-1, channel_count, 8, 8)
    wrong = {"mean": (0.9,) * channel_count, "std": (0.05,) * channel_count}
    target = Target(Brightness(lambda images: images), tuple("abcd"), (channel_count, 8, 8), **wrong)
    with pytest.raises(
        TargetMisread, match=r"in training; with mean 0( 0 0)? and std 1( 1 1)? it is 1: give"
    ):
        check_accuracy(target, images=images, labels=labels, declared=0.98)


@pytest.mark.parametrize(
    ("channel_count", "mean", "std"),
    [
        (1, [0.1307], [0.3081]),
        (3, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        (3, [0.4914, 0.4822, 0.4465], [0.247, 0.2435, 0.2616]),
    ],
)
def test_the_statistics_of_well_known_data_are_tried(channel_count, mean, std):
    """The target sees only images scaled just so: anything else it refuses to recognise."""

    class Strict(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            plain = scaled(mean, std)(images)
            known = ((plain - plain.round()).abs() < 1e-3).flatten(1).all(dim=1)
            return F.one_hot(torch.where(known, plain[:, 0, 0, 0].round().long().clamp(0, 1), 2), 3).float()

    labels = torch.arange(100) % 2
    images = labels.float().reshape(-1, 1, 1, 1).expand(-1, channel_count, 4, 4)
    target = Target(Strict(), ("a", "b", "c"), (channel_count, 4, 4))
    with pytest.raises(TargetMisread, match=r"with mean .* it is 1: give --mean") as misread:
        check_accuracy(target, images=images, labels=labels, declared=None)
    assert f"--mean {' '.join(map(str, mean))} --std {' '.join(map(str, std))}" in str(misread.value)


def test_classes_in_another_order_are_recognised():
    target, images, labels = reading(5, image_count=100, correct=0)
    with pytest.raises(TargetMisread, match="with its classes in another order it is 1: give"):
        check_accuracy(target, images=images, labels=labels, declared=None)


def test_where_nothing_helps_no_reading_is_named():
    images = torch.rand(400, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(400) % 4
    target = Target(nn.Sequential(nn.Flatten(), nn.Linear(64, 4)), ("a", "b", "c", "d"), (1, 8, 8))
    with pytest.raises(
        TargetMisread, match="no usual normalisation, scale or order of channels or classes does better"
    ):
        check_accuracy(target, images=images, labels=labels, declared=0.9)


class Divided(nn.Module):
    """For pixels of 0 to 255."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images / 255


def test_of_many_images_sorted_by_class_all_classes_are_tried():
    """A search among the first images only would see one class, and be content with any constant answer."""
    target, images, labels = reading(4, image_count=4000, correct=4000)
    order = labels.argsort(stable=True)
    misread = Target(nn.Sequential(Divided(), target.model), target.class_names, target.image_shape)
    with pytest.raises(TargetMisread, match=r"it is 1: give --mean 0 --std 0\.003922"):
        check_accuracy(misread, images=images[order], labels=labels[order], declared=None)
