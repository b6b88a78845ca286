import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmi.metrics import NeighbourRatio, nearest_distances, neighbour_ratio


def cloud(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), count=st.sampled_from([1, 30, 513]))
def test_nearest_distances_equal_the_plain_search(seed: int, count: int) -> None:
    points, references = cloud(count, seed), cloud(20, seed + 1)
    found = nearest_distances(points, references=references)
    expected = [min(float((point - reference).norm()) for reference in references) for point in points]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)


def test_a_copy_is_at_distance_zero_exactly() -> None:
    references = cloud(300, 0) + 1000
    assert nearest_distances(references[100:150], references=references).max() == 0
    with pytest.raises(ValueError, match="reference"):
        nearest_distances(references, references=references[:0])


def test_the_ratio_counted_by_hand() -> None:
    train, held_out = torch.tensor([[0.0], [10.0]]), torch.tensor([[4.0], [20.0]])
    reconstructions = torch.tensor([[1.0], [3.0], [10.0], [4.0], [16.0]])
    found = neighbour_ratio(reconstructions=reconstructions, train=train, held_out=held_out)
    assert found.train_distance.tolist() == [1, 3, 0, 4, 6]
    assert found.held_out_distance.tolist() == [3, 1, 6, 0, 4]
    assert found.ratio.tolist() == pytest.approx([1 / 3, 3, 0, math.inf, 1.5])
    assert found.reference_count == 2


def test_an_image_in_both_sets_speaks_for_neither() -> None:
    both = torch.tensor([[1.0], [2.0]])
    assert neighbour_ratio(reconstructions=both, train=both, held_out=both).ratio.tolist() == [1, 1]


def test_a_larger_training_set_is_no_nearer_for_its_size() -> None:
    reconstructions = cloud(200, 0)
    found = neighbour_ratio(reconstructions=reconstructions, train=cloud(3000, 1), held_out=cloud(60, 2))
    assert found.reference_count == 60
    assert float(found.ratio.median()) == pytest.approx(1, abs=0.1)
    whole = nearest_distances(reconstructions, references=cloud(3000, 1)) / found.held_out_distance
    assert float(whole.median()) < 0.7


def test_thinning_is_seeded_and_works_either_way() -> None:
    reconstructions, train, held_out = cloud(20, 0), cloud(50, 1), cloud(200, 2)

    def found(seed: int = 0) -> NeighbourRatio:
        return neighbour_ratio(reconstructions=reconstructions, train=train, held_out=held_out, seed=seed)

    assert found().reference_count == 50
    assert torch.equal(found().train_distance, nearest_distances(reconstructions, references=train))
    assert torch.equal(found().ratio, found().ratio)
    assert not torch.equal(found().ratio, found(seed=1).ratio)
