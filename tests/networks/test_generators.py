import pytest
import torch
from torch import nn

from patchmi.networks import CodeGenerator, ConditionalGenerator
from patchmi.networks.generator import Doubling, DoublingConvolution


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def latents(count: int, size: int = 100, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, size, generator=torch.Generator().manual_seed(seed))


def conditional(**changes: int) -> ConditionalGenerator:
    torch.manual_seed(0)
    settings = {"class_count": 10, "channel_count": 1, "image_size": 32, "width": 4} | changes
    return ConditionalGenerator(**settings)


def coded(**changes: int) -> CodeGenerator:
    torch.manual_seed(0)
    settings = {"code_count": 1, "channel_count": 1, "image_size": 32} | changes
    return CodeGenerator(**settings)


def test_the_published_generator_has_the_published_number_of_parameters() -> None:
    assert parameter_count(coded()) == 3_444_069
    assert parameter_count(coded(channel_count=3)) == 3_448_167
    for code_count in (2, 5):
        assert parameter_count(coded(code_count=code_count)) == 3_444_069 + 100 * (code_count - 1)


@pytest.mark.parametrize(("side", "levels"), [(32, 3), (64, 4), (128, 5), (32, 2)])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_published_generator_paints_images_of_the_asked_size(
    side: int, levels: int, channels: int
) -> None:
    network = coded(image_size=side, channel_count=channels, level_count=levels, width=4)
    images = network(latents(2), torch.zeros(2, dtype=torch.long))
    assert images.shape == (2, channels, side, side)
    assert images.abs().max() <= 1


def test_the_published_generators_code_and_latents_both_change_the_picture() -> None:
    network = coded(code_count=2, width=8).eval()
    same = latents(1).repeat(2, 1)
    by_code = network(same, torch.tensor([0, 1]))
    by_latent = network(latents(2), torch.tensor([0, 0]))
    alike = network(same, torch.tensor([1, 1]))
    assert not torch.allclose(by_code[0], by_code[1])
    assert not torch.allclose(by_latent[0], by_latent[1])
    torch.testing.assert_close(alike[0], alike[1])


def test_the_published_generator_starts_from_small_gaussian_weights() -> None:
    """N(0, .02) weights, N(1, .02) batch-norm scales, batch-norm shifts untouched."""
    network = coded().requires_grad_(False)
    weights = torch.cat(
        [layer.weight.flatten() for layer in network.modules() if isinstance(layer, nn.ConvTranspose2d)]
    )
    assert float(weights.mean()) == pytest.approx(0, abs=1e-4)
    assert float(weights.std()) == pytest.approx(0.02, rel=0.01)
    norms = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    scales = torch.cat([layer.weight for layer in norms])
    assert float(scales.mean()) == pytest.approx(1, abs=0.01)
    assert float(scales.std()) == pytest.approx(0.02, rel=0.2)
    assert all((layer.bias == 0).all() for layer in norms)


@pytest.mark.parametrize("side", [8, 28, 32, 48, 64, 100])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_conditional_generator_paints_any_size_within_the_range(side: int, channels: int) -> None:
    network = conditional(image_size=side, channel_count=channels)
    images = network(5 * latents(2), torch.tensor([0, 9]))
    assert images.shape == (2, channels, side, side)
    assert images.dtype == torch.float32
    assert images.min() >= -1
    assert images.max() <= 1


@pytest.mark.parametrize("side", [28, 32, 100])
def test_every_pixel_depends_on_latents_and_label(side: int) -> None:
    network = conditional(image_size=side).eval()
    with torch.no_grad():
        images = network(latents(40), torch.arange(40) % 10)
    assert (images.std(dim=0) > 0).all()


def test_the_label_changes_the_picture_and_nothing_else_does() -> None:
    network = conditional().eval()
    pictures = network(latents(1).repeat(10, 1), torch.arange(10))
    for one in range(10):
        for other in range(one):
            assert not torch.allclose(pictures[one], pictures[other])
    again = network(latents(1), torch.tensor([3]))
    torch.testing.assert_close(again[0], pictures[3], atol=1e-5, rtol=1e-4)


def test_the_latents_change_the_picture_of_a_class() -> None:
    pictures = conditional().eval()(latents(2), torch.tensor([4, 4]))
    assert not torch.allclose(pictures[0], pictures[1])


def test_a_generator_in_evaluation_mode_paints_each_picture_by_itself() -> None:
    network, draws, labels = conditional().eval(), latents(6), torch.arange(6)
    together = network(draws, labels)
    alone = torch.cat([network(draws[i : i + 1], labels[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("class_count", [2, 26])
def test_a_further_class_costs_one_embedding_row(class_count: int) -> None:
    more = conditional(class_count=class_count + 1, embedding_size=7)
    fewer = conditional(class_count=class_count, embedding_size=7)
    assert parameter_count(more) - parameter_count(fewer) == 7


def test_the_latent_size_is_the_constructors() -> None:
    network = conditional(latent_size=12)
    assert network.latent_size == 12
    assert network(latents(3, 12), torch.zeros(3, dtype=torch.long)).shape == (3, 1, 32, 32)
    with pytest.raises(RuntimeError):
        network(latents(3, 13), torch.zeros(3, dtype=torch.long))


@pytest.mark.parametrize("make", [conditional, coded])
def test_the_same_seed_makes_the_same_generator_and_every_weight_learns(make) -> None:
    first, second = make(width=4), make(width=4)
    for one, other in zip(first.parameters(), second.parameters(), strict=True):
        assert torch.equal(one, other)
    first(latents(4), torch.zeros(4, dtype=torch.long)).square().sum().backward()
    for name, parameter in first.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_conditional_generator_leaves_no_checkerboard_of_its_own() -> None:
    """With constant maps inside, the middle of the picture is flat: no phase of the grid is brighter."""
    network = conditional(image_size=64).eval()
    with torch.no_grad():
        network.project.weight.zero_()
        network.project.bias.copy_(torch.ones_like(network.project.bias))
        middle = network(latents(1), torch.tensor([0]))[0, 0, 28:36, 28:36]
    assert float(middle.std()) < 1e-5


@pytest.mark.parametrize(("height", "width"), [(1, 1), (3, 4), (8, 8)])
def test_doubling_and_convolving_at_once_is_doubling_and_then_convolving(height: int, width: int) -> None:
    torch.manual_seed(0)
    at_once = DoublingConvolution(5, 3).double()
    one_after_the_other = nn.Sequential(Doubling(), nn.Conv2d(5, 3, 3, padding=1).double())
    one_after_the_other[1].load_state_dict(at_once.state_dict())
    maps = torch.randn(2, 5, height, width, dtype=torch.float64)
    found, gradients = [], []
    for network in (at_once, one_after_the_other):
        here = maps.clone().requires_grad_()
        found.append(network(here))
        gradients.append(torch.autograd.grad(found[-1].square().sum(), [here, *network.parameters()]))
    torch.testing.assert_close(found[0], found[1])
    torch.testing.assert_close(gradients[0], gradients[1])
