import pytest
import torch
from torch import nn

from patchmi.metrics import extract_features


class Classifier(nn.Module):
    """The convention of patchmi's own classifiers: `features`, then `head`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Dropout(), nn.Linear(4 * 36, 7)
        )
        self.head = nn.Linear(7, 3)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return self.trunk(images)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(images))


class Upside(nn.Module):
    """Its last registered linear layer is not the last to run."""

    def __init__(self) -> None:
        super().__init__()
        self.classifier = nn.Linear(5, 3)
        self.embedding = nn.Linear(64, 5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.embedding(images.flatten(1)).relu())


@pytest.fixture
def images() -> torch.Tensor:
    return torch.rand(11, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def test_features_are_what_enters_the_head(images: torch.Tensor) -> None:
    model = Classifier().eval()
    features, logits = extract_features(model, images, batch_size=4)
    torch.testing.assert_close(features, model.features(images).detach())
    torch.testing.assert_close(logits, model(images).detach())
    assert not features.requires_grad
    assert not logits.requires_grad


@pytest.mark.parametrize("batch_size", [1, 11, 256])
def test_the_batch_size_does_not_matter(images: torch.Tensor, batch_size: int) -> None:
    model = Classifier()
    torch.testing.assert_close(
        extract_features(model, images, batch_size), extract_features(model, images, 3)
    )


def test_the_last_linear_layer_to_run_counts(images: torch.Tensor) -> None:
    model = Upside()
    features, _ = extract_features(model, images)
    torch.testing.assert_close(features, model.embedding(images.flatten(1)).relu().detach())


def test_the_model_is_left_as_it_came(images: torch.Tensor) -> None:
    model = Classifier().train()
    model.trunk[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    extract_features(model, images)
    assert model.training
    assert model.trunk[4].training
    assert not model.trunk[1].training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_a_model_without_a_linear_end_is_refused_and_left_as_it_came(images: torch.Tensor) -> None:
    convolutional = nn.Sequential(nn.Conv2d(1, 3, 8), nn.Flatten()).train()
    with pytest.raises(ValueError, match="no linear layer"):
        extract_features(convolutional, images)
    gated = nn.Sequential(
        nn.Flatten(), nn.Linear(64, 16), nn.Unflatten(1, (1, 4, 4)), nn.Conv2d(1, 3, 4), nn.Flatten()
    )
    with pytest.raises(ValueError, match="no linear layer"):
        extract_features(gated, images)
    assert convolutional.training
    assert not any(module._forward_pre_hooks for module in gated.modules())
    with pytest.raises(ValueError, match="one image"):
        extract_features(Classifier(), images[:0])
