"""BREP-MI: a latent is pushed away from other classes, and its sphere grows where there are none."""

import pytest
import torch

from patchmi.attacks import BrepMI, GanTraining
from patchmi.attacks.brep_mi import BEGUN, REPELLED, _Walk, repulsion
from patchmi.attacks.public_gan import PublicGan
from patchmi.target import LabelAccess

SIDE = 4
ATTACK = BrepMI(gan=GanTraining(latent_size=2), point_count=64)


class Plane(torch.nn.Module):
    """A generator that draws a latent of two numbers as the grey of its left and its right half."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        halves = (latents / 8).clamp(-1, 1)
        return halves[:, None, None, :].expand(-1, 1, SIDE, 2).repeat_interleave(SIDE // 2, dim=3)


def quadrant(images: torch.Tensor) -> torch.Tensor:
    """Four classes: where on the plane a latent lay."""
    right, up = images[:, 0, 0, -1] > 127, images[:, 0, 0, 0] > 127
    return torch.nn.functional.one_hot(2 * up.long() + right.long(), 4).float()


def walk_on_plane(budget: int = 100_000, attack: BrepMI = ATTACK) -> _Walk:
    door = LabelAccess(quadrant, class_names=("a", "b", "c", "d"), image_shape=(1, SIDE, SIDE), budget=budget)
    return _Walk(attack, PublicGan(Plane(), torch.nn.Identity(), 2), door)


def test_a_latent_moves_away_from_the_other_class_by_a_third_of_the_radius():
    directions = torch.tensor([[[1.0, 0], [-1, 0], [0, 1], [0, -1]]])
    moved = repulsion(directions, torch.tensor([[1.0, 0, 0, 0]]), radii=torch.tensor([6.0]))
    torch.testing.assert_close(moved, torch.tensor([[-2 / 4, 0.0]]))
    far = repulsion(directions, torch.tensor([[0.0, 0, 1, 0]]), radii=torch.tensor([60.0]))
    torch.testing.assert_close(far, torch.tensor([[0.0, -3 / 4]]))


def test_first_latents_are_of_their_classes():
    torch.manual_seed(0)
    walk = walk_on_plane()
    walk.look_around(128)
    assert walk.is_found.all()
    assert walk._ask(walk.centres, stage="check").tolist() == [0, 1, 2, 3]
    assert walk.centres.abs().max() <= 1.5


def test_spheres_end_deep_within_their_classes():
    torch.manual_seed(0)
    walk = walk_on_plane()
    walk.look_around(128)
    first = walk.centres.clone()
    for _ in range(60):
        walk.advance()
    assert (walk.last_radii > 2).all()
    signs = torch.tensor([[-1, -1], [-1, 1], [1, -1], [1, 1]])
    assert ((walk.last_centres * signs).amin(dim=1) > (first * signs).amin(dim=1)).all()
    drawn = quadrant(walk.gan.draw(walk.answer(torch.randn(4, 50, 2)).flatten(0, 1))).argmax(dim=1)
    assert (drawn == torch.arange(4).repeat_interleave(50)).float().mean() >= 0.7
    assert set(walk.door.account.stages) == {BEGUN, REPELLED}


def test_a_class_that_is_never_answered_has_the_gan_s_pictures_and_it_is_said():
    torch.manual_seed(0)
    walk = walk_on_plane()
    walk.is_found[:] = torch.tensor([True, True, False, True])
    (note,) = walk.notes()
    assert note.startswith("Of 1 of 4 classes no latent was found")
    noise = torch.randn(4, 5, 2)
    answer = walk.answer(noise)
    assert torch.equal(answer[2], noise[2])
    assert not torch.equal(answer[1], noise[1])


@pytest.mark.parametrize("wrong", [{"radius": 0.0}, {"point_count": 0}, {"search_share": 1.0}])
def test_settings_that_there_cannot_be_are_refused(wrong):
    with pytest.raises(ValueError, match="give a radius above 0"):
        BrepMI(**wrong)
