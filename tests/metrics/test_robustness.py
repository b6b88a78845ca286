"""Robust accuracy: exact where a formula is, as foolbox finds it where none is."""

import pytest
import torch
from torch import nn

from patchmi.metrics import robust_hits
from patchmi.target import Training, train_classifier

RADII = (0.25, 1.0, 4.0, 16.0)


def pictures(count: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, 1, 6, 6, generator=torch.Generator().manual_seed(seed))


class Linear(nn.Module):
    def __init__(self, class_count: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(36, class_count)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.flatten(1))


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution, self.norm = nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8)
        self.dropout, self.head = nn.Dropout(0.2), nn.Linear(128, 2)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.dropout(self.norm(self.convolution(images)).relu().flatten(1)))


Trained = tuple[Convolutional, torch.Tensor, torch.Tensor]


def withstands_in_truth(model: Linear, images: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Of a linear model: whether no change within the ball and [0, 1] makes another class the best."""
    weight, bias = model.head.weight.double(), model.head.bias.double()
    flat = images.flatten(1).double()
    labels = (flat @ weight.T + bias).argmax(dim=1)
    worst = torch.full((len(images),), torch.inf, dtype=torch.float64)
    for rival in range(len(bias)):
        difference = weight[labels] - weight[rival]
        least = torch.where(difference > 0, (flat - epsilon).clamp_min(0), (flat + epsilon).clamp_max(1))
        margin = (difference * least).sum(dim=1) + bias[labels] - bias[rival]
        worst = torch.where(labels == rival, worst, torch.minimum(worst, margin))
    return worst > 0


@pytest.fixture(scope="module")
def trained() -> Trained:
    """A small convolutional network that knows most of what was learnt, with moments that batches change."""
    images = pictures(200)
    labels = (images[:, 0, :3].mean(dim=(1, 2)) > images[:, 0, 3:].mean(dim=(1, 2))).long()
    model = Convolutional()
    training = Training(step_count=50, batch_size=50, learning_rate=1e-2, precision="float32")
    train_classifier(model, images=images, labels=labels, training=training, seed=0)
    return model, images, labels


def test_it_is_exact_on_a_linear_model_of_two_classes() -> None:
    model, images = Linear(2), pictures(300)
    hits = robust_hits(model, images=images, labels=model(images).argmax(1), epsilons_255=RADII)
    for row, radius in zip(hits, RADII, strict=True):
        assert torch.equal(row, withstands_in_truth(model, images, radius / 255)), radius
    assert 0 < int(hits[-1].sum()) < int(hits[0].sum())


def test_what_stands_in_truth_is_never_said_to_fall() -> None:
    model, images = Linear(5), pictures(300)
    hits = robust_hits(model, images=images, labels=model(images).argmax(1), epsilons_255=RADII)
    for row, radius in zip(hits, RADII, strict=True):
        truth = withstands_in_truth(model, images, radius / 255)
        assert bool(row[truth].all())
        # with several rivals the way to the nearest one may not be the way to the one that is reached first
        assert int(row.sum()) <= int(truth.sum()) + 9


def test_foolbox_finds_what_it_finds(trained: Trained) -> None:
    foolbox = pytest.importorskip("foolbox")
    model, images, labels = trained
    radii = (1.0, 4.0, 8.0)
    attack = foolbox.attacks.LinfPGD(rel_stepsize=2.5 / 20, steps=20, random_start=True)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    _, _, fell = attack(wrapped, images, labels, epsilons=[radius / 255 for radius in radii])
    hits = robust_hits(model, images=images, labels=labels, epsilons_255=radii)
    assert int((hits & fell).sum()) <= 3
    assert int(((~fell).sum(dim=1) - hits.sum(dim=1)).abs().max()) <= 4
    assert int(hits[0].sum()) - int(hits[-1].sum()) > 20  # there was something to find


def test_it_is_never_above_clean_accuracy_and_falls_with_the_radius(
    trained: Trained,
) -> None:
    model, images, labels = trained
    labels = torch.where(torch.arange(200) % 7 == 0, 1 - labels, labels)
    clean = model(images).argmax(1) == labels
    hits = robust_hits(model, images=images, labels=labels, epsilons_255=(8.0, 1.0, 0.001))
    assert not bool((hits & ~clean).any())
    assert not bool((hits[0] & ~hits[1]).any())
    assert not bool((hits[1] & ~hits[2]).any())
    assert int(hits[0].sum()) < int(hits[1].sum()) < int(hits[2].sum()) == int(clean.sum())


def test_a_network_that_is_very_sure_is_no_more_robust() -> None:
    model, images = Linear(2), pictures(100)
    labels = model(images).argmax(1)
    before = robust_hits(model, images=images, labels=labels, epsilons_255=RADII)
    with torch.no_grad():
        for weight in model.parameters():
            weight *= 1e4
    assert torch.equal(before, robust_hits(model, images=images, labels=labels, epsilons_255=RADII))


def test_images_stay_images_within_the_ball() -> None:
    class Watching(nn.Module):
        """Keeps how far what it is asked strays from what it was asked first, and its range."""

        def __init__(self) -> None:
            super().__init__()
            self.linear = Linear(2)
            self.seen: list[torch.Tensor] = []

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            self.seen.append(images.detach().clone())
            return self.linear(images)

    model, images = Watching(), pictures(20).round()
    robust_hits(model, images=images, labels=torch.zeros(20).long(), epsilons_255=(16.0,), step_count=5)
    asked = torch.stack(model.seen[1:])
    assert len(asked) == 6
    assert float(asked.min()) >= 0
    assert float(asked.max()) <= 1
    assert float((asked - images).abs().max()) == pytest.approx(16 / 255, rel=1e-4)


def test_neither_the_batch_size_nor_an_outer_context_matters(
    trained: Trained,
) -> None:
    model, images, labels = trained
    whole = robust_hits(model, images=images, labels=labels)
    assert whole.shape == (2, 200)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(robust_hits(model, images=images, labels=labels, batch_size=77), whole)


def test_the_model_is_left_as_it_came(trained: Trained) -> None:
    model, images, labels = trained
    model.train()
    model.norm.eval()
    model.convolution.weight.requires_grad_(False)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    grads = [weight.grad for weight in model.parameters()]
    state = torch.get_rng_state()
    robust_hits(model, images=images[:8], labels=labels[:8])
    assert [part.training for part in (model, model.norm, model.dropout)] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(weight.grad is grad for weight, grad in zip(model.parameters(), grads, strict=True))
    assert [weight.requires_grad for weight in model.parameters()] == [False] + 5 * [True]
    assert torch.equal(state, torch.get_rng_state())
    model.eval().requires_grad_(True)


@pytest.mark.parametrize(("count", "radii"), [(0, (1.0,)), (2, ()), (2, (1.0, 0.0))])
def test_nothing_to_measure_is_refused(count: int, radii: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="needs images, and radii above 0"):
        robust_hits(Linear(2), images=pictures(count), labels=torch.zeros(count).long(), epsilons_255=radii)
