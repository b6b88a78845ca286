import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmi.data import split_by_class

counts = st.lists(st.integers(1, 30), min_size=1, max_size=5)
shares = st.floats(0.05, 0.95)
seeds = st.integers(0, 2**40)


def numbered(counts: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Images that carry their own number in their only pixel, classes in turn until each is used up."""
    labels = sorted((turn, label) for label, count in enumerate(counts) for turn in range(count))
    images = torch.arange(len(labels), dtype=torch.float32).reshape(-1, 1, 1, 1)
    return images, torch.tensor([label for _, label in labels])


def numbers(images: torch.Tensor) -> list[int]:
    return images.flatten().int().tolist()


@settings(deadline=None, max_examples=60)
@given(counts=counts, share=shares, seed=seeds)
def test_every_image_falls_into_one_part_with_its_label(counts, share, seed):
    images, labels = numbered(counts)
    train, held_out = split_by_class(images, labels, held_out_share=share, seed=seed)
    fallen = numbers(train[0]) + numbers(held_out[0])
    assert sorted(fallen) == list(range(len(labels)))
    assert torch.cat([train[1], held_out[1]]).tolist() == labels[fallen].tolist()


@settings(deadline=None, max_examples=60)
@given(counts=counts, share=shares, seed=seeds)
def test_the_same_share_of_every_class_is_held_out(counts, share, seed):
    images, labels = numbered(counts)
    _, (_, held_out) = split_by_class(images, labels, held_out_share=share, seed=seed)
    for label, count in enumerate(counts):
        assert abs(int((held_out == label).sum()) - share * count) <= 0.5


@settings(deadline=None, max_examples=30)
@given(counts=counts, share=shares, seed=seeds)
def test_a_seed_decides_alone(counts, share, seed):
    images, labels = numbered(counts)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = split_by_class(images, labels, held_out_share=share, seed=seed)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again = split_by_class(images, labels, held_out_share=share, seed=seed)
    for one, other in zip(first, again, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_another_seed_chooses_others():
    images, labels = numbered([50, 50])
    chosen = [numbers(split_by_class(images, labels, held_out_share=0.5, seed=seed)[1][0]) for seed in (0, 1)]
    assert sorted(chosen[0]) != sorted(chosen[1])


def test_every_image_is_held_out_equally_often():
    images, labels = numbered([10, 10])
    times = torch.zeros(20)
    for seed in range(400):
        times[numbers(split_by_class(images, labels, held_out_share=0.3, seed=seed)[1][0])] += 1
    # Binomial with n = 400 and p = .3: a deviation of 9.2; five of them either way.
    assert (times - 120).abs().max() < 46


def test_both_parts_come_in_random_order():
    images, labels = numbered([40, 40])
    for part, _ in split_by_class(images, labels, held_out_share=0.5, seed=0):
        assert numbers(part) != sorted(numbers(part))
