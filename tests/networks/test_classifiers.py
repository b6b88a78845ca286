import pytest
import torch
from torch import nn

from patchmi.networks import ARCHITECTURES, Classifier
from patchmi.networks.classifiers import ResidualBlock

every_architecture = pytest.mark.parametrize("name", ARCHITECTURES)


def make(name: str, *, class_count: int = 10, channel_count: int = 1, width: int = 8) -> Classifier:
    torch.manual_seed(0)
    return ARCHITECTURES[name](class_count=class_count, channel_count=channel_count, width=width)


def pictures(count: int, channels: int, side: int) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))


def batch_norms(network: nn.Module) -> int:
    return sum(isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d) for layer in network.modules())


@every_architecture
@pytest.mark.parametrize("side", [28, 32, 64])
@pytest.mark.parametrize(("channels", "classes"), [(1, 10), (3, 26)])
def test_logits_and_features_have_their_shapes(name: str, side: int, channels: int, classes: int) -> None:
    network = make(name, class_count=classes, channel_count=channels).eval()
    images = pictures(3, channels, side)
    features = network.features(images)
    assert network(images).shape == (3, classes)
    assert features.shape == (3, network.head.in_features)


@every_architecture
def test_the_head_on_the_features_is_the_whole_network(name: str) -> None:
    network, images = make(name).eval(), pictures(4, 1, 32)
    torch.testing.assert_close(network.head(network.features(images)), network(images))


@every_architecture
def test_grey_images_of_the_middle_look_like_nothing_to_the_first_layer(name: str) -> None:
    """Networks normalise [0, 1] to [-1, 1] inside: a pixel of .5 is a 0 there."""
    network = make(name).eval()
    with torch.no_grad():
        expected = network.trunk(torch.zeros(1, 1, 32, 32))
        torch.testing.assert_close(network.features(torch.full((1, 1, 32, 32), 0.5)), expected)
        white = network.trunk(torch.ones(1, 1, 32, 32))
        torch.testing.assert_close(network.features(torch.ones(1, 1, 32, 32)), white)


@every_architecture
def test_in_evaluation_mode_an_image_is_judged_by_itself(name: str) -> None:
    network, images = make(name).eval(), pictures(5, 1, 32)
    alone = torch.cat([network(image[None]) for image in images])
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", ["convmixer", "lenet"])
def test_judges_without_batch_norm_have_none_and_judge_alike_in_both_modes(name: str) -> None:
    network, images = make(name), pictures(5, 1, 32)
    assert batch_norms(network) == 0
    torch.testing.assert_close(network.train()(images), network.eval()(images))


def test_batch_norm_layers_are_where_they_are_expected() -> None:
    """ResNet: stem, two in each of four blocks, one on each of three shortcuts; VGG: one a convolution."""
    assert batch_norms(make("resnet10")) == 1 + 4 * 2 + 3
    assert batch_norms(make("vgg6")) == 6


def test_resnet10_has_nine_convolutions_on_its_main_path_and_a_head() -> None:
    network = make("resnet10")
    wide = [
        layer for layer in network.modules() if isinstance(layer, nn.Conv2d) and layer.kernel_size == (3, 3)
    ]
    assert len(wide) + 1 == 10


def test_a_shorter_path_halves_its_maps_as_a_convolution_of_stride_2_does() -> None:
    block = ResidualBlock(before=4, after=6, stride=2).eval()
    nn.init.zeros_(block.get_parameter("main.4.weight"))
    strided = nn.Conv2d(4, 6, 1, stride=2, bias=False)
    strided.load_state_dict(block.get_submodule("shortcut.0").state_dict())
    maps = pictures(3, 4, 7)
    torch.testing.assert_close(block(maps), block.get_submodule("shortcut.1")(strided(maps)).relu())


@every_architecture
def test_gradients_reach_every_pixel_and_every_weight(name: str) -> None:
    network, images = make(name), pictures(4, 3 if name == "vgg6" else 1, 32).requires_grad_()
    if name == "vgg6":
        network = make(name, channel_count=3)
    network(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).any(dim=0).float().mean() > 0.9
    assert all(parameter.grad is not None for parameter in network.parameters())


@every_architecture
def test_the_same_seed_makes_the_same_classifier(name: str) -> None:
    for one, other in zip(make(name).parameters(), make(name).parameters(), strict=True):
        assert torch.equal(one, other)
    assert sum(p.numel() for p in make(name, width=16).parameters()) > sum(
        p.numel() for p in make(name).parameters()
    )
