import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from patchmi.networks.conditional_gan import (
    AuxiliaryClassifierDiscriminator,
    ConditionalBatchNorm,
    ConditionalResNetGenerator,
    ProjectionDiscriminator,
)

every_shape = pytest.mark.parametrize(
    ("side", "channels", "classes"),
    [(8, 1, 2), (16, 3, 5), (28, 1, 10), (32, 3, 10), (45, 1, 3), (64, 3, 40)],
)


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def weight_of(layer: nn.Module) -> torch.Tensor:
    """A layer's weight as it is used, with its norm."""
    assert isinstance(layer.weight, torch.Tensor)
    return layer.weight.detach()


def generator(*, side: int = 16, channels: int = 1, classes: int = 3) -> ConditionalResNetGenerator:
    torch.manual_seed(0)
    return ConditionalResNetGenerator(
        class_count=classes, channel_count=channels, image_size=side, latent_size=8, width=4
    )


def discriminator(*, side: int = 16, channels: int = 1, classes: int = 3) -> ProjectionDiscriminator:
    torch.manual_seed(0)
    return ProjectionDiscriminator(class_count=classes, channel_count=channels, image_size=side, width=4)


@every_shape
def test_the_generator_draws_any_side_colour_and_class_in_the_range_of_tanh(side, channels, classes):
    images = generator(side=side, channels=channels, classes=classes)(
        numbers(classes, 8), torch.arange(classes)
    )
    assert images.shape == (classes, channels, side, side)
    assert images.dtype == torch.float32
    assert images.abs().max() <= 1
    assert images.std() > 0.01


@every_shape
def test_the_discriminator_gives_each_image_one_number(side, channels, classes):
    network = discriminator(side=side, channels=channels, classes=classes)
    judged = network(numbers(classes, channels, side, side), torch.arange(classes))
    assert judged.shape == (classes,)
    assert judged.isfinite().all()
    assert len(judged.unique()) == classes


def test_gradients_reach_every_weight_of_both_and_every_latent():
    drawing, judging = generator(), discriminator()
    latents, labels = numbers(6, 8).requires_grad_(), torch.arange(6) % 3
    judging(drawing(latents, labels), labels).square().sum().backward()
    for network in (drawing, judging):
        for name, parameter in network.named_parameters():
            # A bias before batch norm has no effect, hence a gradient of next to nothing.
            assert parameter.grad is not None, name
    assert latents.grad is not None
    assert (latents.grad != 0).all()


def shown(layer: ConditionalBatchNorm, maps: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """The slow oracle: channel by channel over all images, then image by image its own class's line."""
    result = torch.empty_like(maps)
    for channel in range(maps.shape[1]):
        if layer.training:
            mean = maps[:, channel].mean()
            variance = (maps[:, channel] - mean).square().mean()
        else:
            buffers = dict(layer.named_buffers())
            mean = buffers["normalise.running_mean"][channel]
            variance = buffers["normalise.running_var"][channel]
        for image, label in enumerate(labels.tolist()):
            plain = (maps[image, channel] - mean) / (variance + 1e-5).sqrt()
            scale, shift = layer.scales.weight[label, channel], layer.shifts.weight[label, channel]
            result[image, channel] = plain * scale + shift
    return result


@pytest.mark.parametrize("trains", [True, False])
def test_batch_norm_is_common_and_scale_and_shift_are_the_classes_own(trains):
    layer = ConditionalBatchNorm(class_count=3, channel_count=4)
    with torch.no_grad():
        layer.scales.weight.copy_(numbers(3, 4, seed=1))
        layer.shifts.weight.copy_(numbers(3, 4, seed=2))
        layer.normalise.running_mean = numbers(4, seed=3)
        layer.normalise.running_var = numbers(4, seed=4).square() + 0.5
    layer.train(trains)
    maps, labels = 2 * numbers(5, 4, 3, 3, seed=5) + 1, torch.tensor([2, 0, 0, 1, 2])
    expected = shown(layer, maps, labels)
    torch.testing.assert_close(layer(maps, labels), expected)


def test_a_new_conditional_batch_norm_is_an_ordinary_one_for_every_class():
    layer, plain = ConditionalBatchNorm(class_count=3, channel_count=4), nn.BatchNorm2d(4)
    maps = 3 * numbers(6, 4, 5, 5) - 1
    torch.testing.assert_close(layer(maps, torch.arange(6) % 3), plain(maps))
    torch.testing.assert_close(layer.normalise.running_mean, plain.running_mean)
    torch.testing.assert_close(layer.normalise.running_var, plain.running_var)


def test_in_evaluation_mode_an_image_depends_on_its_own_latent_and_class_alone():
    network = generator().eval()
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "scales" in name or "shifts" in name:
                parameter.add_(0.3 * numbers(*parameter.shape))
    latents, labels = numbers(4, 8), torch.tensor([0, 1, 2, 1])
    together = network(latents, labels)
    alone = torch.cat([network(latents[i : i + 1], labels[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)
    as_others = network(latents, (labels + 1) % 3)
    assert ((together - as_others).abs().mean(dim=(1, 2, 3)) > 1e-3).all()


def test_an_image_is_judged_by_a_line_of_its_features_and_its_classes_direction():
    """w·f + b + v_y·f, number by number, with the weights of spectral norm."""
    network = discriminator(classes=4).eval()
    images, labels = numbers(5, 1, 16, 16), torch.tensor([3, 0, 1, 3, 2])
    with torch.no_grad():
        features, judged, others = (
            network.features(images),
            network(images, labels),
            network(images, (labels + 1) % 4),
        )
        line, directions = weight_of(network.judge)[0], weight_of(network.class_directions)
    for image, label in enumerate(labels.tolist()):
        expected = float(network.state_dict()["judge.bias"])
        for feature in range(features.shape[1]):
            value = float(features[image, feature])
            expected += value * (float(line[feature]) + float(directions[label, feature]))
        assert float(judged[image]) == pytest.approx(expected, rel=1e-4, abs=1e-5)
    assert not torch.allclose(others, judged)


def test_features_are_sums_over_positions_of_what_is_above_zero():
    network = discriminator().eval()
    images = numbers(3, 1, 16, 16)
    maps = images
    for block in network.blocks:
        maps = block(maps)
    assert maps.shape[2:] == (2, 2)
    expected = sum(F.relu(maps[:, :, row, column]) for row in range(2) for column in range(2))
    torch.testing.assert_close(network.features(images), expected)


@every_shape
def test_the_auxiliary_classifier_judges_and_names_by_lines_of_the_same_features(side, channels, classes):
    torch.manual_seed(0)
    network = AuxiliaryClassifierDiscriminator(
        class_count=classes, channel_count=channels, image_size=side, width=4
    ).eval()
    images = numbers(classes, channels, side, side)
    with torch.no_grad():
        judged, named = network(images)
        maps = images
        for block in network.blocks:
            maps = block(maps)
        features = F.relu(maps).sum(dim=(2, 3))
        line, lines = weight_of(network.judge), weight_of(network.classify)
    assert named.shape == (classes, classes)
    torch.testing.assert_close(judged, (features @ line.T)[:, 0] + network.state_dict()["judge.bias"])
    torch.testing.assert_close(named, features @ lines.T + network.state_dict()["classify.bias"])
    for weight in (line, lines):
        assert torch.linalg.matrix_norm(weight, 2) < 1.5, "spectral norm, before its iteration has settled"


def test_every_weight_of_the_discriminator_stretches_by_one_at_most():
    network = discriminator(channels=3)
    images, labels = numbers(4, 3, 16, 16), torch.tensor([0, 1, 2, 0])
    with torch.no_grad():
        for _ in range(60):
            network(images, labels)
    network.eval()
    normalised = [layer for layer in network.modules() if parametrize.is_parametrized(layer)]
    whole = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d | nn.Linear | nn.Embedding)]
    assert len(normalised) == len(whole) == 3 * 3 + 2
    for layer in normalised:
        stretch = torch.linalg.matrix_norm(weight_of(layer).flatten(1), 2)
        assert float(stretch) == pytest.approx(1, abs=0.02)


def test_a_call_takes_one_step_of_the_power_iteration_and_none_in_evaluation_mode():
    network = discriminator()
    images, labels = numbers(2, 1, 16, 16), torch.tensor([0, 1])
    name = "judge.parametrizations.weight"
    before = {key: value.clone() for key, value in network.state_dict().items()}
    network(images, labels)
    weight, right = before[f"{name}.original"], before[f"{name}.0._v"]
    left = F.normalize(weight @ right, dim=0)
    torch.testing.assert_close(network.state_dict()[f"{name}.0._v"], F.normalize(weight.T @ left, dim=0))
    state = copy.deepcopy(network.eval().state_dict())
    network(images, labels)
    assert all(torch.equal(value, state[name]) for name, value in network.state_dict().items())


def step(network: ProjectionDiscriminator, optimiser: torch.optim.Optimizer, seed: int) -> None:
    optimiser.zero_grad()
    network(numbers(4, 1, 16, 16, seed=seed), torch.tensor([0, 1, 2, 0])).square().mean().backward()
    optimiser.step()


def test_a_discriminator_whose_state_was_kept_goes_on_to_the_same_bits():
    network = discriminator()
    optimiser = torch.optim.Adam(network.parameters())
    for seed in range(3):
        step(network, optimiser, seed)
    kept = copy.deepcopy((network.state_dict(), optimiser.state_dict()))
    torch.manual_seed(9)
    again = ProjectionDiscriminator(class_count=3, channel_count=1, image_size=16, width=4)
    its_optimiser = torch.optim.Adam(again.parameters())
    again.load_state_dict(kept[0])
    its_optimiser.load_state_dict(kept[1])
    for one, its in ((network, optimiser), (again, its_optimiser)):
        step(one, its, 7)
    for name, value in network.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_in_bfloat16_weights_are_still_normalised_in_32_bits_and_judgements_nearly_the_same():
    network, exact = discriminator(), discriminator()
    images, labels = numbers(4, 1, 16, 16), torch.tensor([0, 1, 2, 0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        judged = network(images, labels)
    expected = exact(images, labels)
    assert judged.dtype == torch.float32
    torch.testing.assert_close(judged, expected, atol=0.05, rtol=0.05)
    for name, value in network.state_dict().items():
        assert torch.equal(value, exact.state_dict()[name]), name


def test_the_same_seed_makes_the_same_networks_and_width_makes_them_larger():
    for make in (generator, discriminator):
        for one, other in zip(make().parameters(), make().parameters(), strict=True):
            assert torch.equal(one, other)
    wide = ProjectionDiscriminator(class_count=3, channel_count=1, image_size=16, width=8)
    assert sum(p.numel() for p in wide.parameters()) > 2 * sum(
        p.numel() for p in discriminator().parameters()
    )
