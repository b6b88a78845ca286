"""DP-SGD: what is clipped, how noisy it is, what is drawn, and what is accounted for."""

import copy
import itertools
import re
import sys
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from tests.defences.test_training import bars, weights
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.claims import forbidden_claims_in
from patchmi.defences import Defended, DpSgd, Lesson, choose_defence, train_defended
from patchmi.defences.dp_sgd import draw_probability, poisson_batches, tolerated_delta
from patchmi.networks import ARCHITECTURES, Classifier, build_classifier
from patchmi.target import Training

opacus = pytest.importorskip("opacus")

BRIEF = Training(step_count=8, batch_size=256, learning_rate=1e-2)


def network(architecture: str = "resnet10", *, width: int = 8) -> Classifier:
    torch.manual_seed(0)
    built = build_classifier(f"{architecture}+group-norm", class_count=3, channel_count=1, width=width)
    return machine.place(built).train()


def lesson(count: int = 12) -> Lesson:
    return Lesson(*bars(count), BRIEF, class_count=3)


def trained(
    strength: float, *, count: int = 24, seed: int = 0, training: Training = BRIEF, width: int = 4
) -> Defended:
    given = Lesson(*bars(count), training, class_count=3)
    return train_defended("allconv", DpSgd(strength), given, seed=seed, width=width)


def step(model: Classifier, given: Lesson, *, index: Tensor, noisy: bool) -> dict[str, Tensor]:
    """What one step of plain gradient descent, at a rate of 1, takes from the weights, by name."""
    before = {name: weight.detach().clone() for name, weight in model.named_parameters()}
    with DpSgd(1.1).applied(model, given) as hooks:
        optimiser = hooks.wrap(torch.optim.SGD(model.parameters(), 1.0))
        if not noisy:
            optimiser.noise_multiplier = 0.0
        loss = F.cross_entropy(model(given.images[index]), given.labels[index])
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    return {name: before[name] - weight.detach() for name, weight in model.named_parameters()}


@pytest.mark.parametrize("side", [16, 8])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_each_image_is_clipped_as_in_a_slow_loop_over_single_images(architecture: str, side: int) -> None:
    model, given = network(architecture), lesson()
    given = replace(given, images=F.adaptive_avg_pool2d(given.images, side))
    with torch.no_grad():  # some answers become sure and right, with small gradients, and some sure and wrong
        model.head.weight *= 20
    plain = copy.deepcopy(model)
    total = {name: torch.zeros_like(weight) for name, weight in plain.named_parameters()}
    norms = []
    for image, label in zip(given.images, given.labels, strict=True):
        plain.zero_grad()
        F.cross_entropy(plain(image[None]), label[None]).backward()
        gradients = {name: weight.grad for name, weight in plain.named_parameters()}
        flat = torch.cat([gradient.flatten() for gradient in gradients.values() if gradient is not None])
        norms.append(float(flat.norm()))
        for name, gradient in gradients.items():
            assert gradient is not None, name
            total[name] += gradient * min(1.0, 1 / norms[-1])
    assert max(norms) > 1
    taken = step(model, given, index=torch.arange(12), noisy=False)
    for name, moved in taken.items():
        torch.testing.assert_close(moved, total[name] / 12, rtol=1e-3, atol=1e-5, msg=name)


def _flattened(layer: nn.Module, images: tuple[Tensor, ...], logits: Tensor) -> Tensor:
    return 0.001 * logits


def test_small_gradients_are_not_scaled_up() -> None:
    model, given = network(), lesson()
    with torch.no_grad():
        model.head.weight *= 0.001
    plain = copy.deepcopy(model)
    for one in (plain, model):
        one.register_forward_hook(_flattened)
    F.cross_entropy(plain(given.images), given.labels).backward()
    taken = step(model, given, index=torch.arange(12), noisy=False)
    for name, weight in plain.named_parameters():
        torch.testing.assert_close(taken[name], weight.grad, rtol=1e-3, atol=1e-7, msg=name)


def test_an_empty_batch_is_a_step_of_noise_of_the_right_scale() -> None:
    given = lesson(400)
    taken = step(network(width=24), given, index=torch.zeros(0, dtype=torch.long), noisy=True)
    noise = torch.cat([moved.flatten() for moved in taken.values()]).double()
    assert len(noise) > 100_000
    assert float(noise.std()) == pytest.approx(1.1 / 256, rel=0.01)  # σC/B
    assert abs(float(noise.mean())) < 5 * 1.1 / 256 / len(noise) ** 0.5


def test_draws_are_coins_of_their_own() -> None:
    torch.manual_seed(0)
    draws = list(itertools.islice(poisson_batches(40, 10), 8000))
    drawn = torch.stack([torch.zeros(40, dtype=torch.float64).index_fill(0, draw, 1) for draw in draws])
    assert all(len(draw.unique()) == len(draw) for draw in draws)
    assert float((drawn.mean(dim=0) - 0.25).abs().max()) < 4.5 * (0.25 * 0.75 / 8000) ** 0.5
    assert float(drawn.sum(dim=1).var()) == pytest.approx(40 * 0.25 * 0.75, rel=0.06)  # 0 if all were dealt
    among = torch.corrcoef(drawn.T) - torch.eye(40, dtype=torch.float64)
    assert float(among.abs().max()) < 5.5 / 8000**0.5
    again = ((drawn[1:] - 0.25) * (drawn[:-1] - 0.25)).mean() / (0.25 * 0.75)
    assert abs(float(again)) < 4 / (40 * 8000) ** 0.5


def test_few_images_are_all_drawn_and_of_very_many_often_none() -> None:
    torch.manual_seed(0)
    assert next(poisson_batches(5, 256)).tolist() == [0, 1, 2, 3, 4]
    assert draw_probability(5, 256) == 1
    assert draw_probability(1024, 256) == 0.25
    empty = [len(draw) == 0 for draw in itertools.islice(poisson_batches(50, 1), 2000)]
    assert sum(empty) / 2000 == pytest.approx(0.98**50, abs=0.05)


@pytest.mark.parametrize(("count", "strength"), [(24, 0.5), (300, 1.1), (300, 60.0)])
def test_what_was_spent_is_what_the_accountant_says_step_by_step(count: int, strength: float) -> None:
    note, caveat = trained(strength, count=count, width=2).notes
    accountant = opacus.accountants.RDPAccountant()
    for _ in range(8):
        accountant.step(noise_multiplier=strength, sample_rate=min(1.0, 256 / count))
    found = re.match(r"\(epsilon, delta\) = \((\S+), (\S+)\) for one training image .*: (\d+) steps", note)
    assert found is not None
    with pytest.warns(UserWarning, match="largest") if strength == 60 else nullcontext():
        expected = accountant.get_epsilon(1e-5)
    assert float(found[1]) == pytest.approx(expected, rel=1e-3)
    assert float(found[2]) == 1e-5
    assert found[3] == "8"
    for part in (
        "Poisson",
        f"rate of {min(1.0, 256 / count):.4g},",
        f"multiplier {strength:g},",
        "group norm",
    ):
        assert part in note
    assert "validation" in caveat
    assert "not cryptographic" in caveat
    assert not forbidden_claims_in(note + caveat)


def test_delta_is_below_one_images_share() -> None:
    assert tolerated_delta(100) == 1e-5
    assert tolerated_delta(1_000_000) == pytest.approx(1e-7)


def test_it_still_learns_with_little_noise() -> None:
    training = Training(step_count=25, learning_rate=2e-2)
    images, labels = bars(90, seed=5)
    classifier = trained(0.3, count=150, training=training, width=6).network
    assert float((classifier(images).argmax(1) == labels).float().mean()) > 0.9


def test_the_same_seed_gives_the_same_bytes_without_bfloat16() -> None:
    first = weights(trained(1.1).network)
    rounded = Training(step_count=8, learning_rate=1e-2, precision="bfloat16", weight_decay=0.5, batch_size=3)
    assert weights(trained(1.1, training=rounded).network) == first
    assert weights(trained(1.1, seed=1).network) != first
    assert weights(trained(1.2).network) != first


def test_the_network_comes_out_as_an_ordinary_one() -> None:
    images, _ = bars(6)
    classifier = trained(1.1).network
    fresh = build_classifier("allconv+group-norm", class_count=3, channel_count=1, width=4)
    assert_ordinary(classifier, fresh)
    fresh.load_state_dict(classifier.state_dict())
    torch.testing.assert_close(fresh.eval()(images), classifier(images))
    copied = copy.deepcopy(classifier)
    (gradient,) = torch.autograd.grad(copied(images.requires_grad_()).sum(), images)
    assert bool(gradient.isfinite().all())
    assert bool((gradient != 0).any())


def test_nothing_is_left_of_a_training_that_failed() -> None:
    given, model = lesson(), network()

    def break_off() -> None:
        with DpSgd(1.1).applied(model, given):
            model(given.images)  # activations are kept now
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        break_off()
    assert_ordinary(model, network())
    assert given.notes == []


def assert_ordinary(model: nn.Module, fresh: nn.Module) -> None:
    assert list(model.state_dict()) == list(fresh.state_dict())
    for layer, like in zip(model.modules(), fresh.modules(), strict=True):
        assert type(layer) is type(like)
        assert set(vars(layer)) == set(vars(like))
        assert not layer._forward_hooks
        assert not layer._backward_hooks
    assert not any(vars(weight) for weight in model.parameters())


@pytest.mark.parametrize("strength", [0.0, -1.0, float("inf"), float("nan")])
def test_a_wrong_strength_is_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"dp-sgd, strength .*: give a noise multiplier above 0"):
        choose_defence("dp-sgd", strength)


def test_without_opacus_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ValueError, match=r"^defence dp-sgd needs opacus: pip install 'patchmi\[dp\]'$"):
        trained(1.1)
