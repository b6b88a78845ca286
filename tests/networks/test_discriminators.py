import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.networks import ClassPatchDiscriminator, CodeClassifier, PatchDiscriminator
from patchmi.networks.patch_discriminator import coordinates_like


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def pictures(count: int, channels: int, side: int, *, seed: int = 0) -> torch.Tensor:
    return torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def make(
    *, patch_size: int = 6, stride: int = 2, padding: int = 2, channel_count: int = 1, **switches: bool
) -> PatchDiscriminator:
    """A small discriminator with weights large enough to tell patches apart."""
    torch.manual_seed(0)
    geometry = {"patch_size": patch_size, "stride": stride, "padding": padding}
    network = PatchDiscriminator(channel_count=channel_count, width=16, level_count=3, **geometry, **switches)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(10)
    return network


@pytest.mark.parametrize(
    ("channels", "patch", "stride", "padding", "width", "count"),
    [(1, 6, 2, 2, 256, 141_313), (1, 8, 4, 0, 256, 148_481), (3, 8, 4, 0, 512, 624_641)],
    ids=["mnist", "emnist", "cifar10"],
)
def test_published_discriminators_have_the_published_number_of_parameters(
    channels: int, patch: int, stride: int, padding: int, width: int, count: int
) -> None:
    network = PatchDiscriminator(
        channel_count=channels, patch_size=patch, stride=stride, padding=padding, width=width
    )
    assert parameter_count(network) == count


@pytest.mark.parametrize(
    ("side", "patch", "stride", "padding", "cells"),
    [(32, 6, 2, 2, 16), (32, 8, 4, 0, 7), (128, 24, 13, 13, 11), (32, 16, 8, 0, 3), (32, 32, 32, 0, 1)],
)
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_cut_into_the_published_grids(
    side: int, patch: int, stride: int, padding: int, cells: int, channels: int
) -> None:
    network = make(
        channel_count=channels, patch_size=patch, stride=stride, padding=padding, normalises=cells > 1
    )
    assert network(pictures(2, channels, side)).shape == (2, 1, cells, cells)


@pytest.mark.parametrize(("patch", "stride", "padding"), [(6, 2, 2), (8, 4, 0), (5, 3, 1)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_logit_judges_its_own_patch_and_nothing_else(
    patch: int, stride: int, padding: int, channels: int
) -> None:
    """Cut each patch out by hand and judge it alone."""
    network = make(channel_count=channels, patch_size=patch, stride=stride, padding=padding, normalises=False)
    image = pictures(1, channels, 20)
    padded = F.pad(image, (padding, padding, padding, padding))
    network_for_one = make(
        channel_count=channels, patch_size=patch, stride=stride, padding=0, normalises=False
    )
    network_for_one.load_state_dict(network.state_dict())
    logits = network(image)[0, 0]
    rows, columns = logits.shape
    assert rows == columns == (20 + 2 * padding - patch) // stride + 1
    for i in range(rows):
        for j in range(columns):
            cut = padded[:, :, i * stride : i * stride + patch, j * stride : j * stride + patch]
            torch.testing.assert_close(network_for_one(cut)[0, 0, 0, 0], logits[i, j], atol=1e-4, rtol=1e-4)


def test_a_pixel_reaches_only_the_patches_that_hold_it() -> None:
    network = make(patch_size=8, stride=4, padding=0, normalises=False)
    image = pictures(1, 1, 32).requires_grad_()
    network(image)[0, 0, 2, 5].backward()
    assert image.grad is not None
    touched = image.grad[0, 0] != 0
    expected = torch.zeros(32, 32, dtype=torch.bool)
    expected[8:16, 20:28] = True
    assert torch.equal(touched, expected)


def test_instance_norm_couples_the_patches_of_one_image_but_not_two_images() -> None:
    network = make(patch_size=8, stride=4, padding=0)
    one, other = pictures(1, 1, 32), pictures(1, 1, 32, seed=1)
    changed = one.clone()
    changed[:, :, 24:, 24:] = 1
    assert not torch.allclose(network(changed)[0, 0, 0, 0], network(one)[0, 0, 0, 0])
    torch.testing.assert_close(network(torch.cat([one, other])), torch.cat([network(one), network(other)]))


def test_gradients_reach_the_images_and_every_weight() -> None:
    network, images = make(), pictures(2, 1, 32).requires_grad_()
    network(images).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.95
    assert all(parameter.grad is not None for parameter in network.parameters())


def test_a_discriminator_starts_from_small_gaussian_weights() -> None:
    torch.manual_seed(0)
    network = PatchDiscriminator(
        channel_count=1, patch_size=6, stride=2, padding=2, width=128
    ).requires_grad_(False)
    weights = torch.cat(
        [layer.weight.flatten() for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    )
    assert float(weights.mean()) == pytest.approx(0, abs=1e-3)
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)


def test_a_discriminator_learns_to_tell_stripes_from_noise_patch_by_patch() -> None:
    network = make(padding=0, normalises=False)
    stripes = torch.ones(32).where(torch.arange(32) % 4 < 2, -1.0).expand(8, 1, 32, 32)
    noise = pictures(8, 1, 32)
    optimiser = torch.optim.Adam(network.parameters(), 3e-3)
    for _ in range(60):
        loss = F.softplus(-network(stripes)).mean() + F.softplus(network(noise)).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert float((network(stripes) > 0).float().mean()) > 0.95
    assert float((network(pictures(8, 1, 32, seed=1)) < 0).float().mean()) > 0.95


@pytest.mark.parametrize(("side", "channels", "codes"), [(32, 1, 2), (32, 3, 5), (28, 1, 2), (30, 3, 3)])
def test_the_code_classifier_gives_one_logit_a_code(side: int, channels: int, codes: int) -> None:
    network = CodeClassifier(channel_count=channels, code_count=codes, image_size=side, width=8)
    assert network(pictures(3, channels, side)).shape == (3, codes)


def test_the_code_classifier_is_as_published() -> None:
    """3×3 convolutions to 64, 128, 256 channels, batch norm on the last two, a linear head on 4×4."""
    network = CodeClassifier(channel_count=1, code_count=2, image_size=32)
    convolutions = (9 + 1) * 64 + (64 * 9 + 1) * 128 + (128 * 9 + 1) * 256
    assert parameter_count(network) == convolutions + 2 * (128 + 256) + (256 * 16 + 1) * 2


# The discriminator that knows the class


def make_for_classes(*, channel_count: int = 1, sees_coordinates: bool = True) -> ClassPatchDiscriminator:
    torch.manual_seed(0)
    return ClassPatchDiscriminator(
        channel_count=channel_count, class_count=3, width=8, sees_coordinates=sees_coordinates
    )


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("side", "cells"), [(32, 8), (64, 16), (20, 5), (4, 1)])
def test_a_class_s_patches_stand_four_pixels_apart(side: int, cells: int, channels: int) -> None:
    network = make_for_classes(channel_count=channels)
    logits = network(pictures(2, channels, side), torch.tensor([0, 2]))
    assert logits.shape == (2, 1, cells, cells)


def test_a_class_s_patch_is_of_eighteen_pixels() -> None:
    """Pixels outside matter by the image's mean alone, so all of them alike."""
    image = pictures(1, 1, 40).requires_grad_()
    make_for_classes()(image, torch.tensor([1]))[0, 0, 4, 5].backward()
    assert image.grad is not None
    outside = image.grad[0, 0, 0, 0]
    assert outside != 0
    rows, columns = (image.grad[0, 0] - outside).abs().gt(1e-7).nonzero().T
    assert (int(rows.min()), int(rows.max())) == (9, 26)
    assert (int(columns.min()), int(columns.max())) == (13, 30)


def test_an_empty_image_is_told_from_one_that_is_empty_in_most_patches() -> None:
    network, labels = make_for_classes(), torch.tensor([0])
    empty = torch.full((1, 1, 40, 40), -1.0)
    elsewhere, moved = empty.clone(), empty.clone()
    elsewhere[..., 30:34, 30:34] = 1
    moved[..., 34:38, 34:38] = 1
    of_empty, of_elsewhere, of_moved = (
        network(image, labels)[0, 0, 0, 0].item() for image in (empty, elsewhere, moved)
    )
    assert abs(of_empty - of_elsewhere) > 5e-6
    assert of_elsewhere == pytest.approx(of_moved, abs=5e-7)


def test_the_class_changes_the_judgement_by_what_it_looks_for_in_a_patch() -> None:
    """The projection is linear in the class's direction, and none is left without it."""
    network, images = make_for_classes(), pictures(2, 1, 16)
    first, second = network(images, torch.tensor([0, 0])), network(images, torch.tensor([1, 1]))
    assert not torch.allclose(first, second)
    with torch.no_grad():
        network.class_directions.weight[2] = network.class_directions.weight[:2].mean(dim=0)
        between = network(images, torch.tensor([2, 2]))
        torch.testing.assert_close(between, (first + second) / 2)
        network.class_directions.weight.zero_()
        same = network(images, torch.tensor([0, 0]))
    torch.testing.assert_close(same, network(images, torch.tensor([1, 1])))


@pytest.mark.parametrize("sees_coordinates", [False, True])
def test_where_a_patch_stands_matters_only_to_those_that_see_coordinates(sees_coordinates: bool) -> None:
    network = make_for_classes(sees_coordinates=sees_coordinates)
    logits = network(torch.zeros(1, 1, 64, 64), torch.tensor([0]))[0, 0]
    inside = logits[3:-3, 3:-3].flatten().tolist()
    if sees_coordinates:
        assert len({round(logit, 7) for logit in inside}) == len(inside)
    else:
        assert inside == pytest.approx([inside[0]] * len(inside), abs=1e-6)


def test_coordinates_are_row_and_column_from_minus_one_to_one() -> None:
    rows, columns = coordinates_like(torch.rand(2, 1, 3, 5))[1]
    torch.testing.assert_close(rows, torch.tensor([-1.0, 0.0, 1.0])[:, None].expand(3, 5))
    torch.testing.assert_close(columns, torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).expand(3, 5))


def test_gradients_reach_all_of_the_class_s_discriminator() -> None:
    network, images = make_for_classes(), pictures(3, 1, 32).requires_grad_()
    network(images, torch.arange(3)).square().sum().backward()
    assert images.grad is not None
    assert (images.grad != 0).float().mean() > 0.95
    assert all(parameter.grad is not None for parameter in network.parameters())
