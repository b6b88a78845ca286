import copy
import dataclasses
import math
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.losses import Moments, batch_norm_loss
from patchmi.networks import ARCHITECTURES
from patchmi.networks.classifiers import Classifier
from patchmi.target import AccessDenied, AsClassifier, Target, WhiteBox, answers

SIDE = 16


class DenseWithBatchNorm(nn.Module):
    """Batch norm over vectors and over sequences, and a layer that remembers nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(SIDE * SIDE, 12)
        self.vectors = nn.BatchNorm1d(12)
        self.sequences = nn.BatchNorm1d(3, affine=False)
        self.forgetful = nn.BatchNorm1d(12, track_running_stats=False)
        self.head = nn.Linear(12, 4)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.vectors(self.first(images.flatten(1))))
        hidden = self.sequences(hidden.reshape(-1, 3, 4)).flatten(1)
        return self.head(self.forgetful(hidden))


def pictures(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def make_model(name: str = "resnet10") -> nn.Module:
    """A model that remembers some training: its running statistics are not the fresh 0 and 1."""
    torch.manual_seed(0)
    model = (
        DenseWithBatchNorm()
        if name == "dense"
        else ARCHITECTURES[name](class_count=4, channel_count=1, width=8)
    )
    model.train()
    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 0.7
    with torch.no_grad():
        for seed in range(3):
            model(pictures(16, seed=seed) ** 2)
    return model.eval()


def make_target(model: nn.Module) -> Target:
    return Target(model, class_names=("a", "b", "c", "d"), image_shape=(1, SIDE, SIDE))


def layer_inputs(
    model: nn.Module, images: torch.Tensor
) -> list[tuple[nn.modules.batchnorm._BatchNorm, torch.Tensor]]:
    """What each remembering batch-norm layer is given, noted by hooks on a copy."""
    model = copy.deepcopy(model).eval()
    seen = []
    handles = [
        layer.register_forward_hook(lambda layer, inputs, _: seen.append((layer, inputs[0].detach())))
        for layer in model.modules()
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None
    ]
    model(images)
    for handle in handles:
        handle.remove()
    return seen


def hook_count(module: nn.Module) -> int:
    return sum(
        len(layer._forward_pre_hooks) + len(layer._forward_hooks) + len(layer._backward_hooks)
        for layer in module.modules()
    )


@pytest.mark.parametrize("training", [True, False])
def test_the_target_leaves_bit_identical(training: bool) -> None:
    model = make_model().train(training)
    next(iter(model.parameters())).requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    asked = [parameter.requires_grad for parameter in model.parameters()]
    modes = [layer.training for layer in model.modules()]
    strides = [parameter.stride() for parameter in model.parameters()]

    door = WhiteBox(make_target(model))
    images = pictures(6).requires_grad_()
    logits, moments = door.logits_and_moments(images)
    (logits.square().sum() + batch_norm_loss(moments)).backward()
    door.logits(images).sum().backward()

    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == asked
    assert [layer.training for layer in model.modules()] == modes
    assert [parameter.stride() for parameter in model.parameters()] == strides
    assert all(parameter.grad is None for parameter in model.parameters())
    assert hook_count(model) == 0


def test_a_door_keeps_answering_as_the_target_did_when_it_was_opened() -> None:
    model = make_model()
    expected = model(pictures(3))
    door = WhiteBox(make_target(model))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    torch.testing.assert_close(door.logits(pictures(3)), expected)


def test_a_target_in_training_mode_is_asked_in_evaluation_mode() -> None:
    model = make_model()
    expected = model(pictures(3))
    model.train()
    torch.testing.assert_close(WhiteBox(make_target(model)).logits(pictures(3)), expected)
    assert model.training


def test_nothing_is_spent_on_gradients_of_the_targets_weights() -> None:
    logits, moments = WhiteBox(make_target(make_model())).logits_and_moments(pictures(3))
    assert not logits.requires_grad
    assert not any(layer.batch_mean.requires_grad for layer in moments)


def test_asking_does_not_change_the_answers() -> None:
    door = WhiteBox(make_target(make_model().train()))
    first = door.logits(pictures(4))
    for seed in range(3):
        logits, moments = door.logits_and_moments(pictures(4, seed=seed).requires_grad_())
        (logits.sum() + batch_norm_loss(moments)).backward()
    assert torch.equal(door.logits(pictures(4)), first)
    again, _ = door.logits_and_moments(pictures(4))
    torch.testing.assert_close(again, first)


@pytest.mark.parametrize("name", ["resnet10", "convmixer", "dense"])
def test_logits_and_their_gradients_are_the_plain_models(name: str) -> None:
    model = make_model(name)
    labels = torch.tensor([0, 3, 1])
    plain, through = pictures(3).requires_grad_(), pictures(3).requires_grad_()
    expected = model(plain)
    F.cross_entropy(expected, labels).backward()
    found = WhiteBox(make_target(model)).logits(through)
    F.cross_entropy(found, labels).backward()
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(through.grad, plain.grad, atol=1e-6, rtol=1e-3)


def test_every_question_is_counted_once() -> None:
    door = WhiteBox(make_target(make_model()))

    def counts() -> tuple[int, int, int]:
        return door.queries.forward, door.queries.backward, door.queries.images

    assert counts() == (0, 0, 0)
    door.logits(pictures(5))
    assert counts() == (1, 0, 5)
    logits = door.logits(pictures(3).requires_grad_())
    assert counts() == (2, 0, 8)
    logits.sum().backward()
    assert counts() == (2, 1, 8)
    logits, _ = door.logits_and_moments(pictures(2).requires_grad_())
    assert counts() == (3, 1, 10)
    logits.sum().backward(retain_graph=True)
    logits.sum().backward()
    assert counts() == (3, 3, 10)
    with torch.no_grad():
        door.logits(pictures(7).requires_grad_())
    assert counts() == (4, 3, 17)
    other = WhiteBox(make_target(make_model()))
    assert other.queries.forward == 0


def test_a_loss_on_logits_and_moments_together_is_one_backward_question() -> None:
    door = WhiteBox(make_target(make_model()))
    logits, moments = door.logits_and_moments(pictures(4).requires_grad_())
    (F.cross_entropy(logits, torch.zeros(4, dtype=torch.long)) + batch_norm_loss(moments)).backward()
    assert door.queries.backward == 1


@pytest.mark.parametrize(("name", "layers"), [("resnet10", 12), ("vgg6", 6), ("dense", 2)])
def test_moments_are_those_that_batch_norm_itself_takes(name: str, layers: int) -> None:
    """In training mode with momentum 1 a layer's memory becomes the batch: mean, and variance with n - 1."""
    model, images = make_model(name), pictures(5, seed=9)
    _, moments = WhiteBox(make_target(model)).logits_and_moments(images)
    seen = layer_inputs(model, images)
    assert len(moments) == len(seen) == layers
    for found, (layer, values) in zip(moments, seen, strict=True):
        assert layer.running_mean is not None
        assert layer.running_var is not None
        torch.testing.assert_close(found.running_mean, layer.running_mean)
        torch.testing.assert_close(found.running_variance, layer.running_var)
        n = values.numel() // values.shape[1]
        layer.train()
        layer.momentum = 1.0
        layer(values)
        torch.testing.assert_close(found.batch_mean, layer.running_mean, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(
            found.batch_variance, layer.running_var * (n - 1) / n, atol=1e-5, rtol=1e-4
        )


@pytest.mark.parametrize("name", ["resnet10", "vgg6", "dense"])
def test_moments_of_images_make_up_those_of_their_batch(name: str) -> None:
    door, images = WhiteBox(make_target(make_model(name))), pictures(5, seed=9)
    logits, of_images = door.logits_and_image_moments(images)
    torch.testing.assert_close(logits, door.logits(images))
    _, of_batch = door.logits_and_moments(images)
    for single, whole in zip(of_images, of_batch, strict=True):
        assert single.batch_mean.shape == (5, len(whole.batch_mean))
        torch.testing.assert_close(single.batch_mean.mean(dim=0), whole.batch_mean)
        squares = single.batch_variance + single.batch_mean.square()
        torch.testing.assert_close(
            squares.mean(dim=0), whole.batch_variance + whole.batch_mean.square(), atol=1e-5, rtol=1e-4
        )
        assert torch.equal(single.running_mean, whole.running_mean)


def test_a_single_image_has_the_moments_of_its_batch() -> None:
    door, image = WhiteBox(make_target(make_model("vgg6"))), pictures(1, seed=9)
    _, of_images = door.logits_and_image_moments(torch.cat([image, pictures(2)]))
    _, of_batch = door.logits_and_moments(image)
    for single, whole in zip(of_images, of_batch, strict=True):
        torch.testing.assert_close(single.batch_variance[0], whole.batch_variance, atol=1e-5, rtol=1e-4)


def test_moments_of_activations_far_from_zero_are_still_exact() -> None:
    """A mean of 150 deviations, where a difference of two squares keeps few of the variance's digits."""
    model = nn.Sequential(nn.BatchNorm2d(1), nn.Flatten(), nn.Linear(SIDE * SIDE, 4)).eval()
    images = 0.9 + 0.02 * pictures(40)
    _, (found,) = WhiteBox(make_target(model)).logits_and_moments(images)
    assert found.batch_mean.item() == pytest.approx(float(images.double().mean()), rel=1e-5)
    assert found.batch_variance.item() == pytest.approx(float(images.double().var(correction=0)), rel=0.02)


@pytest.mark.parametrize("name", ["resnet10", "dense"])
def test_moments_pass_gradients_to_the_images(name: str) -> None:
    model = make_model(name)
    through = pictures(5).requires_grad_()
    _, moments = WhiteBox(make_target(model)).logits_and_moments(through)
    batch_norm_loss(moments).backward()

    plain, slow = pictures(5).requires_grad_(), []

    def note(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        values = inputs[0]
        others = [dimension for dimension in range(values.dim()) if dimension != 1]
        mean = values.mean(dim=others)
        shape = [1, -1] + [1] * (values.dim() - 2)
        variance = (values - mean.reshape(shape)).square().mean(dim=others)
        assert isinstance(layer, nn.modules.batchnorm._BatchNorm)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        slow.append(Moments(mean, variance, layer.running_mean, layer.running_var))

    for layer in model.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm) and layer.running_mean is not None:
            layer.register_forward_pre_hook(note)
    model(plain)
    batch_norm_loss(slow).backward()
    assert plain.grad is not None
    torch.testing.assert_close(through.grad, plain.grad, atol=1e-5 * float(plain.grad.abs().max()), rtol=1e-3)


def test_images_from_the_memorys_own_distribution_match_better_than_others() -> None:
    door = WhiteBox(make_target(make_model()))
    _, familiar = door.logits_and_moments(pictures(32, seed=20) ** 2)
    _, foreign = door.logits_and_moments(1 - pictures(32, seed=20) ** 2)
    assert float(batch_norm_loss(familiar)) < float(batch_norm_loss(foreign)) / 2


def test_under_mixed_precision_moments_stay_float32_and_near() -> None:
    model, images = make_model(), pictures(8)
    _, exact = WhiteBox(make_target(model)).logits_and_moments(images)
    with machine.mixed_precision("bfloat16"):
        _, rounded = WhiteBox(make_target(model)).logits_and_moments(images)
    for one, other in zip(exact, rounded, strict=True):
        assert other.batch_mean.dtype == other.batch_variance.dtype == torch.float32
        torch.testing.assert_close(other.batch_mean, one.batch_mean, atol=0.05, rtol=0.05)
        torch.testing.assert_close(other.batch_variance, one.batch_variance, atol=0.05, rtol=0.1)


def test_one_asking_does_not_disturb_the_moments_of_another() -> None:
    door = WhiteBox(make_target(make_model()))
    _, first = door.logits_and_moments(pictures(4))
    kept = [layer.batch_mean.clone() for layer in first]
    door.logits(pictures(4, seed=1))
    _, second = door.logits_and_moments(pictures(4, seed=1))
    assert len(first) == len(second) == 12
    assert all(torch.equal(layer.batch_mean, mean) for layer, mean in zip(first, kept, strict=True))
    assert not torch.equal(first[3].batch_mean, second[3].batch_mean)


def test_a_failed_asking_does_not_disturb_the_next() -> None:
    door = WhiteBox(make_target(make_model()))
    expected = door.logits_and_moments(pictures(2))[1]
    with pytest.raises(RuntimeError):
        door.logits_and_moments(torch.rand(2, 3, SIDE, SIDE))
    found = door.logits_and_moments(pictures(2))[1]
    assert len(found) == len(expected) == 12
    torch.testing.assert_close(found[-1].batch_mean, expected[-1].batch_mean)


def test_the_doors_own_model_carries_no_hooks_between_questions() -> None:
    door = WhiteBox(make_target(make_model()))
    models = [value for value in vars(door).values() if isinstance(value, nn.Module)]
    before = [hook_count(model) for model in models]
    for _ in range(3):
        door.logits_and_moments(pictures(2))
    assert [hook_count(model) for model in models] == before


@pytest.mark.parametrize("name", ["convmixer", "lenet"])
def test_a_target_without_batch_norm_has_no_moments_and_says_so(name: str) -> None:
    target = make_target(make_model(name))
    door = WhiteBox(target)
    logits, moments = door.logits_and_moments(pictures(3))
    assert moments == []
    assert not door.has_batch_norm
    assert target.batch_norm_layer_count == 0
    torch.testing.assert_close(logits, door.logits(pictures(3)))


@pytest.mark.parametrize(("name", "layers"), [("resnet10", 12), ("vgg6", 6), ("dense", 2)])
def test_only_batch_norm_layers_that_remember_are_counted(name: str, layers: int) -> None:
    target = make_target(make_model(name))
    assert target.batch_norm_layer_count == layers
    assert WhiteBox(target).has_batch_norm


@pytest.mark.parametrize("name", ["resnet10", "lenet", "mlp", "dense"])
def test_features_are_what_makes_the_logits_by_the_last_layer(name: str) -> None:
    model, images = make_model(name), pictures(5)
    door = WhiteBox(make_target(model))
    logits, features = door.logits_and_features(images)
    torch.testing.assert_close(logits, door.logits(images))
    head = model.get_submodule("head")
    torch.testing.assert_close(head(features), logits)
    if isinstance(model, Classifier):
        torch.testing.assert_close(features, model.features(images), atol=1e-5, rtol=1e-4)


def test_features_are_one_question_and_pass_gradients_to_the_images() -> None:
    model = make_model("lenet")
    assert isinstance(model, Classifier)
    door = WhiteBox(make_target(model))
    through, plain = pictures(3).requires_grad_(), pictures(3).requires_grad_()
    logits, features = door.logits_and_features(through)
    assert (door.queries.forward, door.queries.images) == (1, 3)
    (logits.sum() + features.square().sum()).backward()
    (model(plain).sum() + model.features(plain).square().sum()).backward()
    assert (door.queries.forward, door.queries.backward) == (1, 1)
    assert plain.grad is not None
    torch.testing.assert_close(through.grad, plain.grad, atol=1e-5, rtol=1e-3)


def test_features_leave_no_hooks_and_do_not_mix_up_two_askings() -> None:
    model = make_model("lenet")
    assert isinstance(model, Classifier)
    door = WhiteBox(make_target(model))
    before = hook_count(door._model)
    _, first = door.logits_and_features(pictures(3))
    _, second = door.logits_and_features(pictures(2, seed=1))
    torch.testing.assert_close(first, model.features(pictures(3)))
    torch.testing.assert_close(second, model.features(pictures(2, seed=1)))
    assert hook_count(door._model) == before
    with pytest.raises(RuntimeError):
        door.logits_and_features(torch.rand(2, 3, SIDE, SIDE))
    assert hook_count(door._model) == before


@pytest.mark.parametrize(
    "ending",
    [nn.Conv2d(1, 4, SIDE), nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 8), nn.Unflatten(1, (4, 2)))],
    ids=["no linear layer", "a linear layer that makes no logits"],
)
def test_logits_that_no_linear_layer_makes_have_no_features(ending: nn.Module) -> None:
    door = WhiteBox(make_target(nn.Sequential(ending, nn.Flatten(), nn.AdaptiveAvgPool1d(4))))
    assert door.logits(pictures(2)).shape == (2, 4)
    with pytest.raises(ValueError, match=r"no linear layer.*4 classes.*nn\.Linear") as refused:
        door.logits_and_features(pictures(2))
    assert "\n" not in str(refused.value)


def test_a_door_tells_what_the_target_is_like() -> None:
    target = make_target(make_model())
    door = WhiteBox(target)
    assert target.class_count == door.class_count == 4
    assert door.class_names == ("a", "b", "c", "d")
    assert door.image_shape == (1, SIDE, SIDE)


def test_the_auditor_asks_about_many_images_in_their_order():
    model = make_model()
    images = pictures(600)
    logits = answers(make_target(model), images, batch_size=256)
    assert logits.shape == (600, 4)
    assert torch.allclose(logits, model(images).detach(), atol=1e-4)
    assert not logits.requires_grad


def test_mean_and_std_are_applied_before_the_model_and_only_there():
    class FirstPixels(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images[:, :, 0, 0]

    images = torch.rand(5, 3, 2, 2)
    target = Target(FirstPixels(), ("r", "g", "b"), (3, 2, 2), mean=(0.5, 0.25, 0.0), std=(0.5, 0.25, 2.0))
    expected = torch.stack(
        [(images[:, c, 0, 0] - m) / s for c, (m, s) in enumerate([(0.5, 0.5), (0.25, 0.25), (0, 2)])], 1
    )
    assert torch.allclose(answers(target, images), expected)
    assert torch.allclose(WhiteBox(target).logits(images), expected)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.5,), ()), ((), (0.5,)), ((0.5, 0.5), (1.0, 1.0)), ((0.5,), (0.0,)), ((math.nan,), (1.0,))],
)
def test_mean_and_std_that_do_not_fit_are_refused(mean, std):
    with pytest.raises(ValueError, match="mean"):
        Target(make_model(), ("a", "b", "c", "d"), (1, SIDE, SIDE), mean=mean, std=std)


@pytest.mark.parametrize(
    "wrap", [lambda x: (x, None), lambda x: [x], lambda x: {"logits": x}, lambda x: SimpleNamespace(logits=x)]
)
def test_wrapped_answers_are_unwrapped(wrap):
    class Wrapped(nn.Module):
        def forward(self, images: torch.Tensor) -> object:
            return wrap(images.flatten(1)[:, :4])

    images = pictures(3)
    assert torch.equal(AsClassifier(make_target(Wrapped()))(images), images.flatten(1)[:, :4])


@pytest.mark.parametrize("answer", [None, "logits", {}, ()])
def test_an_answer_without_logits_is_named(answer):
    class Odd(nn.Module):
        def forward(self, images: torch.Tensor) -> object:
            return answer

    with pytest.raises(TypeError, match="must answer logits"):
        AsClassifier(make_target(Odd()))(pictures(2))


def test_probabilities_give_the_logits_of_which_they_are_the_softmax():
    model = make_model()
    target = dataclasses.replace(
        make_target(nn.Sequential(model, nn.Softmax(dim=1))), gives_probabilities=True
    )
    images = pictures(8)
    assert torch.allclose(answers(target, images).softmax(1), model(images).softmax(1), atol=1e-6)
    certain = dataclasses.replace(make_target(Fixed()), gives_probabilities=True)
    assert answers(certain, images).isfinite().all()


class Fixed(nn.Module):
    """Quite sure of class 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.tensor([1.0, 0.0, 0.0, 0.0]).expand(len(images), -1)


def test_a_target_that_grants_scores_only_opens_no_white_box():
    target = dataclasses.replace(make_target(make_model()), access="score")
    with pytest.raises(AccessDenied, match=r"grants score access only.*give the model's weights"):
        WhiteBox(target)
    assert answers(target, pictures(2)).shape == (2, 4)
