import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import cohen_kappa_score

from patchmi.metrics import (
    class_means,
    clopper_pearson,
    cohen_kappa,
    confidence,
    confidence_floor,
    consensus_hits,
    judge_agreement,
    lowest_agreement,
    top_k_accuracy,
    top_k_hits,
    worst_class,
)

LOGITS = torch.tensor([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [3.0, 1.0, 2.0], [0.0, 9.0, 8.0]])
LABELS = torch.tensor([0, 1, 1, 0])


def votes_for(*labels: int, sureness: float = 20.0) -> torch.Tensor:
    """Logits of one judge that names these labels."""
    return sureness * torch.nn.functional.one_hot(torch.tensor(labels), 3).float()


def test_top_k_accuracy_counted_by_hand() -> None:
    assert top_k_hits(LOGITS, LABELS).tolist() == [True, False, False, False]
    assert [top_k_accuracy(LOGITS, LABELS, k) for k in (1, 2, 3, 5)] == [0.25, 0.5, 1.0, 1.0]
    with pytest.raises(ValueError, match="one image"):
        top_k_accuracy(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))


def test_confidence_is_the_labels_probability() -> None:
    logits = torch.tensor([[math.log(0.7), math.log(0.2), math.log(0.1)]] * 2)
    assert confidence(logits, torch.tensor([0, 2])).tolist() == pytest.approx([0.7, 0.1])


def test_consensus_counted_by_hand() -> None:
    judges = torch.stack([votes_for(0, 0, 0, 1), votes_for(0, 1, 0, 2), votes_for(0, 2, 1, 2)])
    labels = torch.tensor([0, 0, 0, 1])
    assert consensus_hits(judges, labels).tolist() == [True, False, True, False]
    assert consensus_hits(judges, labels, needed=1).tolist() == [True, True, True, True]
    assert consensus_hits(judges, labels, needed=3).tolist() == [True, False, False, False]


def test_an_unsure_judge_has_no_vote() -> None:
    judges = torch.stack([votes_for(0), votes_for(0, sureness=0.5), votes_for(1)])
    label, sureness = torch.tensor([0]), math.exp(0.5) / (math.exp(0.5) + 2)
    assert consensus_hits(judges, label, floors=torch.tensor([0.9, sureness - 0.01, 0.9])).tolist() == [True]
    assert consensus_hits(judges, label, floors=torch.tensor([0.9, sureness + 0.01, 0.9])).tolist() == [False]


@pytest.mark.parametrize("needed", [0, 4])
def test_consensus_refuses_impossible_majorities(needed: int) -> None:
    with pytest.raises(ValueError, match="votes needed"):
        consensus_hits(torch.zeros(3, 2, 3), torch.zeros(2, dtype=torch.int64), needed=needed)


def test_a_confidence_floor_rejects_the_least_sure_twentieth_of_real_images() -> None:
    logits = torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    floor = confidence_floor(logits)
    assert (logits.softmax(dim=1).amax(dim=1).double() < floor).double().mean() == pytest.approx(0.05)
    with pytest.raises(ValueError, match="held-out"):
        confidence_floor(torch.zeros(0, 3))


def test_class_means_counted_by_hand() -> None:
    hits = torch.tensor([True, False, True, True, False, False])
    labels = torch.tensor([7, 7, 2, 7, 0, 2])
    assert class_means(hits, labels=labels, classes=torch.tensor([0, 2, 7])).tolist() == pytest.approx(
        [0, 0.5, 2 / 3]
    )
    scores = torch.tensor([0.1, 0.3, 0.2, 0.8, 0.4, 0.6])
    assert class_means(scores, labels=labels, classes=torch.tensor([7, 2])).tolist() == pytest.approx(
        [0.4, 0.4]
    )
    with pytest.raises(ValueError, match="class 3 has no image"):
        class_means(hits, labels=labels, classes=torch.tensor([2, 3]))


def test_an_infinite_value_of_one_class_leaves_the_others_alone() -> None:
    values = torch.tensor([math.inf, 1.0])
    assert class_means(values, labels=torch.tensor([0, 1]), classes=torch.tensor([0, 1])).tolist() == [
        math.inf,
        1.0,
    ]


def test_the_worst_class_is_worst_over_all_seeds() -> None:
    rates = torch.tensor([[0.9, 0.0, 0.3], [0.9, 1.0, 0.5]])
    worst = worst_class(rates, classes=torch.tensor([4, 5, 6]), image_count=10)
    assert worst.label == 6
    assert worst.rate == clopper_pearson(8, 20)


def test_kappa_counted_by_hand() -> None:
    # Agreement 4/6; by chance (3·2 + 2·2 + 1·2)/36 = 1/3; kappa = (2/3 - 1/3)/(1 - 1/3).
    first, second = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 1, 1, 2, 2])
    assert cohen_kappa(first, second) == pytest.approx(0.5)


@given(pairs=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=2, max_size=40))
def test_kappa_equals_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    first, second = (torch.tensor(side) for side in zip(*pairs, strict=True))
    kappa = cohen_kappa(first, second)
    if len(set(first.tolist() + second.tolist())) == 1:
        assert math.isnan(kappa)
    else:
        assert kappa == pytest.approx(float(cohen_kappa_score(first.numpy(), second.numpy())))


def test_judge_agreement_is_symmetric_and_its_lowest_pair_counts() -> None:
    predictions = torch.tensor([[0, 1, 2, 0, 1, 2], [0, 1, 2, 0, 1, 2], [0, 1, 2, 1, 2, 0]])
    agreement = judge_agreement(predictions)
    assert torch.allclose(
        agreement, torch.tensor([[1, 1, 0.25], [1, 1, 0.25], [0.25, 0.25, 1]], dtype=torch.float64)
    )
    assert lowest_agreement(predictions) == pytest.approx(0.25)
    with pytest.raises(ValueError, match="two judges"):
        lowest_agreement(predictions[:1])


def test_an_undefined_agreement_is_not_taken_for_a_high_one() -> None:
    predictions = torch.tensor([[1, 1, 1], [1, 1, 1], [0, 1, 1]])
    assert math.isnan(lowest_agreement(predictions))


def test_kappa_needs_the_same_images() -> None:
    with pytest.raises(ValueError, match="same images"):
        cohen_kappa(torch.tensor([0, 1]), torch.tensor([0, 1, 2]))
