import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from patchmi.attacks.pseudo_labels import BATCH_SIZE, best_public
from patchmi.target import Queries, Target, WhiteBox
from patchmi.types import silent


class Pixels(nn.Module):
    """A target that answers with an image's pixels, so that answers can be written down as images."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.scale = scale

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.scale * images.flatten(1)


def door(class_count: int, *, scale: float = 1.0) -> WhiteBox:
    names = tuple(str(label) for label in range(class_count))
    return WhiteBox(Target(Pixels(scale), class_names=names, image_shape=(1, 1, class_count)))


def answering(logits: list[list[float]]) -> torch.Tensor:
    """One image for each row of logits."""
    return torch.tensor(logits)[:, None, None, :]


def test_each_class_gets_the_images_of_its_highest_probability_the_surest_first():
    """By hand: the softmax of a row, not its logit, decides: image 3 has class 0's largest logit but one."""
    public = answering([[0.9, 0.0], [0.2, 0.4], [0.5, 0.1], [0.8, 0.7]])
    # log-odds of class 0: .9, -.2, .4, .1
    assert best_public(door(2), public, n=2, progress=silent).tolist() == [[0, 2], [1, 3]]


def test_one_image_may_speak_for_several_classes():
    public = answering([[0.5, 0.5, 0.0], [0.0, 0.0, 0.9]])
    assert best_public(door(3), public, n=1, progress=silent).tolist() == [[0], [0], [1]]


def test_of_equals_the_first_is_taken():
    public = answering([[0.1, 0.2], [0.7, 0.3], [0.7, 0.3], [0.1, 0.2], [0.7, 0.3]])
    assert best_public(door(2), public, n=2, progress=silent).tolist() == [[1, 2], [0, 3]]


def test_answers_that_a_softmax_rounds_to_nothing_are_still_ordered():
    """Class 1 at e^-300, e^-200 and e^-400, all 0 in 32 bits."""
    public = answering([[0.3, 0.0], [0.2, 0.0], [0.4, 0.0]])
    found = best_public(door(2, scale=1000.0), public, n=3, progress=silent)
    assert found[1].tolist() == [1, 0, 2]


@pytest.mark.parametrize("n", [3, 4, 1000])
def test_of_fewer_public_images_than_asked_all_are_taken(n):
    public = answering([[0.1, 0.9], [0.5, 0.5], [0.9, 0.1]])
    assert best_public(door(2), public, n=n, progress=silent).tolist() == [[2, 1, 0], [0, 1, 2]]


def test_asking_for_none_is_refused():
    asked = door(2)
    with pytest.raises(ValueError, match="n is 0: give 1 or more"):
        best_public(asked, answering([[0.1, 0.9], [0.5, 0.5]]), n=0, progress=silent)
    assert asked.queries == Queries()


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    count=st.integers(1, 12),
    class_count=st.integers(2, 5),
    n=st.integers(1, 14),
    levels=st.integers(2, 9),
)
def test_it_is_what_sorting_probabilities_one_by_one_gives(seed, count, class_count, n, levels):
    random = torch.Generator().manual_seed(seed)
    logits = torch.randint(levels, (count, class_count), generator=random).float() / levels
    found = best_public(door(class_count), answering(logits.tolist()), n=n, progress=silent)
    for label in range(class_count):
        sureness = []
        for row in logits.double().tolist():
            total = sum(math.exp(one) for one in row)
            sureness.append(round(math.exp(row[label]) / total, 6))
        kept = found[label].tolist()
        assert len(set(kept)) == min(n, count)
        left = [sureness[index] for index in range(count) if index not in kept]
        assert [sureness[index] for index in kept] == sorted((sureness[i] for i in kept), reverse=True)
        assert all(sureness[index] >= other for index in kept for other in left)


def test_the_target_is_asked_once_about_every_image_in_batches_and_for_no_gradient():
    count = 2 * BATCH_SIZE + 5
    random = torch.Generator().manual_seed(0)
    public = torch.rand(count, 1, 1, 4, generator=random)
    asked, steps = door(4), []

    def watched(loop, description):
        for step in loop:
            steps.append(description)
            yield step

    found = best_public(asked, public, n=7, progress=watched)
    assert asked.queries == Queries(forward=3, backward=0, images=count)
    assert len(steps) == 3
    assert all(steps)
    whole = public.flatten(1).log_softmax(dim=1)
    for label in range(4):
        assert found[label].tolist() == whole[:, label].sort(descending=True).indices[:7].tolist()
