import pytest
import torch
from torch import nn

from patchmi.networks import DcganDiscriminator, DcganGenerator, WganCritic, WganGenerator

GENERATORS = [DcganGenerator, WganGenerator]
JUDGES = [DcganDiscriminator, WganCritic]


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def generator(form: type, *, side: int = 32, channels: int = 1, latents: int = 100, width: int = 4):
    torch.manual_seed(0)
    return form(channel_count=channels, image_size=side, latent_size=latents, width=width)


def judge(form: type, *, side: int = 32, channels: int = 1, width: int = 4):
    torch.manual_seed(0)
    return form(channel_count=channels, image_size=side, width=width)


def test_the_comparisons_networks_have_the_published_layers_counted_by_hand() -> None:
    """512 maps of 4×4 from 128 latents, then 256 and 128 maps, then the image; 64, 128 and 256 maps back."""
    drawn = 128 * 512 * 16 + 512 * 256 * 16 + 256 * 128 * 16 + 128 * 16 + 1
    norms = 2 * (512 + 256 + 128)
    assert parameter_count(generator(DcganGenerator, latents=128, width=64)) == drawn + norms
    judged = 64 * 16 + 64 * 128 * 16 + 128 * 256 * 16 + 256 * 16 + 1
    assert parameter_count(judge(DcganDiscriminator, width=64)) == judged + 2 * (128 + 256)


def test_gmis_networks_have_the_published_layers_counted_by_hand() -> None:
    """64 pixels, colour: 8192 features, four transposed convolutions of 5×5; four back, and one of 4×4."""
    drawn = 100 * 8192 + 25 * (512 * 256 + 256 * 128 + 128 * 64 + 64 * 3) + 3
    norms = 2 * (8192 + 256 + 128 + 64)
    assert parameter_count(generator(WganGenerator, side=64, channels=3, width=64)) == drawn + norms
    judged = 25 * (3 * 64 + 64 * 128 + 128 * 256 + 256 * 512) + 64 + 128 + 256 + 512 + 512 * 16 + 1
    assert parameter_count(judge(WganCritic, side=64, channels=3, width=64)) == judged + 2 * (128 + 256 + 512)


@pytest.mark.parametrize("side", [8, 15, 28, 32, 45, 64, 100])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("forms", list(zip(GENERATORS, JUDGES, strict=True)), ids=["dcgan", "wgan"])
def test_any_side_is_drawn_within_the_range_in_every_pixel_and_judged_by_one_number(
    forms, side: int, channels: int
) -> None:
    draw, weigh = forms
    network = generator(draw, side=side, channels=channels)
    images = network(5 * torch.randn(20, 100))
    assert images.shape == (20, channels, side, side)
    assert images.abs().max() <= 1
    assert (images.std(dim=0) > 0).all()
    assert judge(weigh, side=side, channels=channels)(images).shape == (20,)


@pytest.mark.parametrize("form", GENERATORS)
def test_in_evaluation_mode_each_latent_draws_its_own_image(form) -> None:
    network = generator(form).eval()
    latents = torch.randn(6, 100)
    alone = torch.cat([network(one[None]) for one in latents])
    torch.testing.assert_close(network(latents), alone, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(alone[0], alone[1])


def test_the_critic_judges_each_image_by_itself_as_its_penalty_needs() -> None:
    network = judge(WganCritic, side=28).train()
    images = torch.rand(5, 1, 28, 28) * 2 - 1
    alone = torch.cat([network(one[None]) for one in images])
    torch.testing.assert_close(network(images), alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("form", JUDGES)
def test_a_judgement_is_no_probability_and_depends_on_every_pixel(form) -> None:
    network = judge(form, side=30)
    images = (torch.rand(8, 1, 30, 30) * 2 - 1).requires_grad_()
    (slopes,) = torch.autograd.grad(network(images).square().sum(), images)
    assert (slopes[:, 0].abs().sum(dim=0) > 0).all()
    assert not any(isinstance(layer, nn.Sigmoid) for layer in network.modules())


@pytest.mark.parametrize("form", [*GENERATORS, *JUDGES])
def test_every_weight_learns_from_the_output(form) -> None:
    if form in GENERATORS:
        network = generator(form, side=20)
        network(torch.randn(4, 100)).square().sum().backward()
    else:
        network = judge(form, side=20)
        network(torch.randn(4, 1, 20, 20)).square().sum().backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_the_comparisons_weights_begin_small() -> None:
    for network in (generator(DcganGenerator, width=16), judge(DcganDiscriminator, width=16)):
        kinds = nn.Conv2d | nn.ConvTranspose2d | nn.Linear
        weights = torch.cat(
            [layer.weight.detach().flatten() for layer in network.modules() if isinstance(layer, kinds)]
        )
        assert float(weights.std()) == pytest.approx(0.02, rel=0.05)
