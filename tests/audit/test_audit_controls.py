"""The arms that an attack is compared with, on a target whose opinion is plain to see."""

import pytest
import torch
from torch import nn

from patchmi.audit import Private, controls
from patchmi.audit.scores import Arm
from patchmi.target import Target, answers


class Brightness(nn.Module):
    """Class 0 is dark, class 1 bright, class 2 grey."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        level = images.mean(dim=(1, 2, 3))
        return 5 * torch.stack([1 - level, level, 1 - 2 * (level - 0.5).abs()], dim=1)


@pytest.fixture
def target() -> Target:
    return Target(Brightness(), class_names=("dark", "bright", "grey"), image_shape=(1, 4, 4))


def levels(images: torch.Tensor) -> torch.Tensor:
    return images.mean(dim=(1, 2, 3))


def steps_of_grey(count: int) -> torch.Tensor:
    """Even pictures from black to white, shuffled."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return torch.linspace(0, 1, count)[order].reshape(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


def test_noise_is_uniform_for_every_class_and_the_same_at_every_audit():
    torch.manual_seed(4)
    before = torch.get_rng_state()
    arm = controls.random_arm(3, (1, 4, 4))
    assert torch.equal(torch.get_rng_state(), before)
    assert arm.images.shape == (300, 1, 4, 4)
    assert arm.labels.bincount().tolist() == [100, 100, 100]
    assert arm.images.min() >= 0
    assert arm.images.max() <= 1
    assert float(arm.images.mean()) == pytest.approx(0.5, abs=0.02)
    assert float(arm.images.std()) == pytest.approx(12**-0.5, abs=0.01)
    torch.manual_seed(5)
    assert torch.equal(controls.random_arm(3, (1, 4, 4)).images, arm.images)


def test_of_the_public_images_each_class_gets_those_that_the_target_is_surest_of(target):
    arm = controls.public_selected_arm(answers(target, steps_of_grey(1001)), steps_of_grey(1001))
    assert arm.labels.tolist() == [label for label in range(3) for _ in range(controls.CONTROL_COUNT)]
    dark, bright, grey = levels(arm.images).split(controls.CONTROL_COUNT)
    assert torch.allclose(dark, torch.arange(100) / 1000, atol=1e-6)
    assert torch.allclose(bright, 1 - torch.arange(100) / 1000, atol=1e-6)
    # Sureness is a share of all classes: the best grey lies in the middle, and few others beside it.
    assert float((grey - 0.5).abs().max()) < 0.06
    assert float(grey[0]) == pytest.approx(0.5)


def test_fewer_public_images_than_a_control_holds_are_all_given_to_every_class(target):
    arm = controls.public_selected_arm(answers(target, steps_of_grey(7)), steps_of_grey(7))
    assert arm.labels.bincount().tolist() == [7, 7, 7]
    for chosen in levels(arm.images).split(7):
        assert sorted(chosen.tolist()) == pytest.approx([step / 6 for step in range(7)])


def test_permuted_labels_keep_images_and_seeds_and_leave_no_label_in_its_place():
    labels = torch.tensor([0, 0, 1, 2, 2, 1])
    attacked = Arm(torch.rand(6, 1, 4, 4), labels, torch.tensor([0, 0, 0, 1, 1, 1]))
    permuted = controls.permuted_arm(attacked)
    assert permuted.labels.tolist() == [1, 1, 2, 0, 0, 2]
    assert torch.equal(permuted.images, attacked.images)
    assert torch.equal(permuted.seeds, attacked.seeds)


def test_the_ceiling_is_every_held_out_image_under_its_own_label():
    held_out, labels = torch.rand(5, 1, 4, 4), torch.tensor([2, 1, 0, 0, 1])
    private = Private(
        torch.rand(8, 1, 4, 4), torch.zeros(8, dtype=torch.long), held_out, labels, ("a", "b", "c"), "x"
    )
    arm = controls.held_out_arm(private)
    assert torch.equal(arm.images, held_out)
    assert torch.equal(arm.labels, labels)
    assert arm.seeds.unique().tolist() == [0]
