"""Trap-MID: how triggers are blended in and move, what is told, and that the toy falls for them."""

from dataclasses import replace

import pytest
import torch
from tests.defences.test_training import BRIEF, bars, weights
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi.defences import Lesson, TrapMid, choose_defence, train_defended
from patchmi.defences.trap_mid import TRIGGER_STEP, Traps, blend
from patchmi.networks import build_classifier
from patchmi.target import PLAIN_TRAINING, Batch, Hooks, Training, train_classifier
from patchmi.views import trapdoor_views


def linear(outputs: int, *, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, outputs))


def small_traps(*, alpha: float = 0.25) -> Traps:
    torch.manual_seed(0)
    triggers = torch.rand(3, 1, 4, 4)
    triggers[:, :, 0] = torch.tensor([0.0, 1.0, 0.0, 1.0])  # at the ends, where they may not go on
    return Traps(triggers, alpha, linear(1, seed=1), learning_rate=0.01, views=nn.Identity())


def test_a_trigger_is_blended_in_by_its_share() -> None:
    images, triggers = torch.tensor([[[[0.0, 1.0, 0.5]]]]), torch.tensor([[[[1.0, 0.0, 0.5]]]])
    assert blend(images, triggers, alpha=0.25).flatten().tolist() == [0.25, 0.75, 0.5]


def test_triggers_take_one_step_each_towards_being_unseen_and_believed() -> None:
    traps, model = small_traps(), linear(3, seed=2)
    images = torch.rand(5, 1, 4, 4)
    targets = torch.tensor([0, 2, 2, 0, 0])
    before = traps.triggers.clone()

    def loss(triggers: Tensor) -> float:
        total = 0.0
        for image, target in zip(images, targets.tolist(), strict=True):
            shown = (0.75 * image + 0.25 * triggers[target])[None].double()
            seen = traps.discriminator.double()(shown).sigmoid().log().sum()
            total -= (seen + model.double()(shown).softmax(1)[0, target].log()).item() / 5
        return total

    slopes = torch.zeros_like(before)
    for place in torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(4)).tolist():
        moved = before.double()
        moved[place[0], 0, place[1], place[2]] += 1e-4
        slopes[place[0], 0, place[1], place[2]] = loss(moved) - loss(before.double())
    traps.discriminator.float()
    traps._move(model.float(), images, targets)
    assert torch.equal(traps.triggers, (before - TRIGGER_STEP * slopes.sign()).clamp(0, 1))
    assert torch.equal(traps.triggers[1], before[1])  # nobody's target
    assert not torch.equal(traps.triggers, before)


def test_the_discriminator_learns_to_tell_blended_images() -> None:
    traps = small_traps()
    images, targets = torch.rand(64, 1, 4, 4), torch.arange(64) % 3
    logits = [
        traps.discriminator(some).detach()
        for some in (images, blend(images, traps.triggers[targets], alpha=0.25))
    ]
    kind = torch.cat([torch.ones(64, 1), torch.zeros(64, 1)])
    expected = nn.Sequential(nn.Flatten(), nn.Linear(16, 1))
    expected.load_state_dict(traps.discriminator.state_dict())
    optimiser = torch.optim.AdamW(expected.parameters(), 0.01)
    blended = torch.cat([images, blend(images, traps.triggers[targets], alpha=0.25)])
    F.binary_cross_entropy_with_logits(expected(blended), kind).backward()
    optimiser.step()
    traps._learn_to_tell(images, targets)
    for one, other in zip(expected.parameters(), traps.discriminator.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    for _ in range(200):
        traps._learn_to_tell(images, targets)
    real, fake = traps.discriminator(blended).detach().chunk(2)
    assert float((real - fake).mean()) > float((logits[0] - logits[1]).mean()) + 0.1


def test_the_loss_is_four_parts_truth_and_one_part_lies() -> None:
    traps, model = small_traps(), linear(3, seed=2)
    images, labels = torch.rand(5, 1, 4, 4), torch.tensor([0, 1, 2, 0, 1])
    torch.manual_seed(3)
    loss = traps.loss(Batch(model, images, labels, 0.0))
    torch.manual_seed(3)
    targets = torch.randint_like(labels, 3)
    plain = model(images).log_softmax(1)
    lured = model(0.75 * images + 0.25 * traps.triggers[targets]).log_softmax(1)
    rows = torch.arange(5)
    oracle = -0.8 * plain[rows, labels].mean() - 0.2 * lured[rows, targets].mean()
    assert loss.item() == pytest.approx(oracle.item(), rel=1e-5)
    loss.backward()
    assert all(weight.grad is not None for weight in model.parameters())
    assert not traps.triggers.requires_grad


def test_moving_triggers_leaves_the_network_alone() -> None:
    network = build_classifier("resnet10", class_count=3, channel_count=1, width=8).train()
    lesson = Lesson(*bars(12), BRIEF, class_count=3, architecture="resnet10", width=8)
    torch.manual_seed(0)
    traps = TrapMid(0.05).traps(lesson)
    before = weights(network), weights(traps.discriminator)
    traps._move(network, *bars(12))
    assert (weights(network), weights(traps.discriminator)) == before
    assert all(part.training for part in (*network.modules(), *traps.discriminator.modules()))
    assert all(weight.grad is None for weight in network.parameters())


def test_views_mirror_only_where_the_training_does() -> None:
    """A ramp to the right stays one through crops and turns of 30°; mirrored, it falls."""
    torch.manual_seed(0)
    ramp = torch.linspace(0.2, 1, 24).expand(60, 1, 20, 24)
    for flips in (False, True):
        views = trapdoor_views((20, 24), flips=flips)
        shown = torch.cat([views(ramp) for _ in range(4)])
        assert shown.shape == (240, 1, 20, 24)
        middle = shown[:, 0, 8:12]
        falls = middle[..., 6:10].mean(dim=(1, 2)) > middle[..., 14:18].mean(dim=(1, 2))
        assert float(falls.float().mean()) == pytest.approx(0.5 if flips else 0, abs=0.15 if flips else 0)


def test_a_toy_learns_its_classes_and_takes_triggers_for_them() -> None:
    training = Training(step_count=150, batch_size=24, learning_rate=3e-3, precision="float32")
    images, labels = bars(48)
    lesson = Lesson(images, labels, training, class_count=3, architecture="mlp", width=4)
    torch.manual_seed(0)
    traps = replace(TrapMid(0.2).traps(lesson), views=nn.Identity())
    networks = []
    for hooks in (PLAIN_TRAINING, Hooks(loss=traps.loss)):
        torch.manual_seed(1)
        network = build_classifier("mlp", class_count=3, channel_count=1, width=4)
        train_classifier(network, images=images, labels=labels, training=training, seed=0, hooks=hooks)
        networks.append(network)
    unseen, truth = bars(60, seed=9)
    targets = (truth + 1) % 3
    lured = blend(unseen, traps.triggers[targets].cpu(), alpha=0.2)
    plain, trapped = (float((one(lured).argmax(1) == targets).float().mean()) for one in networks)
    assert float((networks[1](unseen).argmax(1) == truth).float().mean()) > 0.8
    assert plain < 0.1
    assert trapped > 0.5


def test_the_secret_is_in_nothing_that_is_handed_on_and_the_same_seed_gives_the_same_bytes() -> None:
    lesson = Lesson(*bars(48), replace(BRIEF, step_count=3, precision="bfloat16"), class_count=3)
    first, second = (
        train_defended("resnet10", choose_defence("trap-mid"), lesson, seed=0, width=4) for _ in range(2)
    )
    assert weights(first.network) == weights(second.network)
    plain = build_classifier("resnet10", class_count=3, channel_count=1, width=8)
    assert first.network.state_dict().keys() == plain.state_dict().keys()
    assert vars(first.network).keys() == vars(plain).keys()
    assert first.architecture == "resnet10"


@pytest.mark.parametrize("strength", [0.0, -0.05, 1.0, float("nan")])
def test_wrong_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"trap-mid, strength .*: give a share above 0 and below 1$"):
        TrapMid(strength)
