import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from patchmi.metrics import (
    Estimate,
    clopper_pearson,
    cluster_interval,
    difference_interval,
    maximum_interval,
    zero_success_upper_bound,
)


def rates(*rows: list[float]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64)


@st.composite
def rate_tables(draw: st.DrawFn) -> torch.Tensor:
    seed_count, class_count = draw(st.integers(1, 4)), draw(st.integers(2, 25))
    cells = draw(
        st.lists(st.integers(0, 20), min_size=seed_count * class_count, max_size=seed_count * class_count)
    )
    return torch.tensor(cells, dtype=torch.float64).reshape(seed_count, class_count) / 20


@given(trials=st.integers(1, 200), share=st.floats(0, 1), level=st.sampled_from([0.8, 0.95, 0.99]))
def test_clopper_pearson_equals_scipys_exact_interval(trials: int, share: float, level: float) -> None:
    successes = round(share * trials)
    expected = stats.binomtest(successes, trials).proportion_ci(level, method="exact")
    found = clopper_pearson(successes, trials, level)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)
    assert (found.value, found.n) == (successes / trials, trials)


@pytest.mark.parametrize(("successes", "trials"), [(1, 0), (-1, 4), (5, 4)])
def test_clopper_pearson_refuses_impossible_counts(successes: int, trials: int) -> None:
    with pytest.raises(ValueError, match="successes"):
        clopper_pearson(successes, trials)


@pytest.mark.parametrize(("class_count", "bound"), [(10, 0.259), (26, 0.109), (100, 0.030), (1, 0.95)])
def test_no_success_among_few_classes_leaves_much_open(class_count: int, bound: float) -> None:
    assert zero_success_upper_bound(class_count) == pytest.approx(bound, abs=5e-4)


def test_no_upper_bound_without_classes() -> None:
    with pytest.raises(ValueError, match="class_count"):
        zero_success_upper_bound(0)


def test_few_classes_give_the_student_interval_of_their_means() -> None:
    values = rates([0.28, 0.51, 0.48, 0.5], [0.32, 0.49, 0.52, 0.5])
    low, high = stats.t.interval(0.95, 3, loc=0.45, scale=stats.sem([0.3, 0.5, 0.5, 0.5]))
    found = cluster_interval(values)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.45, low, high, 8))


def test_many_classes_give_the_normal_interval() -> None:
    values = torch.rand(1, 400, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    found = cluster_interval(values, resample_count=4000)
    half_width = 1.96 * float(values.std()) / math.sqrt(400)
    assert found.high - found.low == pytest.approx(2 * half_width, rel=0.05)


def test_luck_shared_by_all_classes_of_a_seed_widens_the_interval() -> None:
    noise = 0.01 * torch.randn(3, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    agreeing = cluster_interval(0.6 + noise)
    luck = torch.tensor([[-0.2], [0.0], [0.2]], dtype=torch.float64)
    disagreeing = cluster_interval(0.6 + noise + luck)
    assert agreeing.high - agreeing.low < 0.02
    assert disagreeing.high - disagreeing.low > 0.3


def test_one_seed_fewer_is_drawn_than_there_are() -> None:
    # Of 625 ways to draw 4 of 5 seeds, 35 have a mean below 0.3 and 70 at most 0.3: a tenth is there.
    values = rates(*[[rate] * 30 for rate in (0.1, 0.3, 0.5, 0.7, 0.9)])
    found = cluster_interval(values, level=0.8, resample_count=20_000)
    assert (found.low, found.high) == pytest.approx((0.3, 0.7))


@pytest.mark.parametrize("constant", [0.0, 1.0])
def test_all_or_no_success_is_as_wide_as_ten_classes_allow(constant: float) -> None:
    found = cluster_interval(torch.full((3, 10), constant))
    exact = clopper_pearson(int(constant) * 10, 10)
    assert found == Estimate(value=constant, low=exact.low, high=exact.high, n=30)


def test_only_proportions_are_widened() -> None:
    found = cluster_interval(torch.ones(3, 10), bounds=(0.0, math.inf))
    assert found.high - found.low < 1e-9


def test_limits_stay_within_the_bounds_that_are_given() -> None:
    values = rates([0.0, 1.0])
    assert cluster_interval(values) == Estimate(value=0.5, low=0.0, high=1.0, n=2)
    free = cluster_interval(values, bounds=None)
    assert free.low < 0
    assert free.high > 1


def test_one_class_alone_has_the_interval_of_its_seeds_and_one_value_alone_its_bounds() -> None:
    low, high = stats.t.interval(0.95, 2, loc=0.5, scale=stats.sem([0.45, 0.5, 0.55]))
    found = cluster_interval(rates([0.45], [0.5], [0.55]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert cluster_interval(rates([0.4])) == Estimate(value=0.4, low=0.0, high=1.0, n=1)
    with pytest.raises(ValueError, match="one value"):
        cluster_interval(rates([0.4]), bounds=None)


@pytest.mark.parametrize("values", [torch.zeros(0, 3), torch.zeros(3, 0), torch.tensor([[math.nan, 0.0]])])
def test_intervals_need_finite_values(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="finite"):
        cluster_interval(values)


@settings(max_examples=40, deadline=None)
@given(values=rate_tables())
def test_an_interval_holds_its_value_and_repeats(values: torch.Tensor) -> None:
    found = cluster_interval(values, resample_count=300)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found == cluster_interval(values.clone(), resample_count=300)


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    """Ten classes of different difficulty, three seeds with luck of their own, 100 images each."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    simulation_count, hits = 200, 0
    difficulty = torch.distributions.Beta(torch.tensor(6.0), torch.tensor(3.0))
    for _ in range(simulation_count):
        truth = difficulty.sample((10,)) + 0.03 * torch.randn(3, 1, generator=generator)
        values = torch.binomial(torch.full((3, 10), 100.0), truth.clamp(0, 1), generator=generator) / 100
        found = cluster_interval(values, resample_count=600)
        hits += found.low <= 6 / 9 <= found.high
    assert 0.9 <= hits / simulation_count <= 0.99


def test_a_difference_is_paired_by_class() -> None:
    base = torch.linspace(0.0, 0.8, 12, dtype=torch.float64)[None]
    lead = rates([0.05, 0.1, 0.15] * 4)
    paired = difference_interval(attack=base + lead, control=base)
    assert (paired.value, paired.n) == (pytest.approx(0.1), 12)
    assert paired.high - paired.low < 0.1
    unpaired = difference_interval(attack=base + lead, control=base.flip(1))
    assert unpaired.high - unpaired.low > 0.3


def test_one_class_far_below_its_control_does_not_raise_the_upper_limit() -> None:
    control = torch.full((1, 10), 0.3)
    attack = control.clone()
    assert difference_interval(attack=attack, control=control).high == 0
    attack[0, 4] = 0.0
    assert difference_interval(attack=attack, control=control).high <= 1e-9
    attack[0, 4] = 1.0
    assert difference_interval(attack=attack, control=control).low >= -1e-9


@pytest.mark.parametrize("class_count", [5, 10, 30])
def test_a_symmetric_difference_has_nearly_the_plain_interval(class_count: int) -> None:
    attack = torch.linspace(0.3, 0.7, class_count, dtype=torch.float64)[None]
    found = difference_interval(attack=attack, control=torch.zeros(1, class_count))
    plain = cluster_interval(attack)
    assert plain.low <= found.low <= plain.low + 0.04
    assert plain.high - 0.04 <= found.high <= plain.high


@settings(max_examples=60, deadline=None)
@given(values=rate_tables(), data=st.data())
def test_no_limit_of_a_difference_falls_when_the_attack_succeeds_more(
    values: torch.Tensor, data: st.DataObject
) -> None:
    raises = data.draw(
        st.lists(st.sampled_from([0, 0, 0, 1, 5, 20]), min_size=values.numel(), max_size=values.numel())
    )
    higher = (values + torch.tensor(raises).reshape(values.shape) / 20).clamp(max=1)
    control = torch.linspace(0, 0.4, values.shape[1])[None]
    before = difference_interval(attack=values, control=control, resample_count=300)
    after = difference_interval(attack=higher, control=control, resample_count=300)
    assert after.low >= before.low - 1e-4
    assert after.high >= before.high - 1e-4


def test_one_seed_of_a_control_stands_against_every_seed_of_the_attack() -> None:
    attack = rates([0.6, 0.7, 0.3], [0.8, 0.7, 0.4])
    control = rates([0.1, 0.2, 0.3])
    assert difference_interval(attack=attack, control=control) == difference_interval(
        attack=attack, control=control.expand(2, 3)
    )
    with pytest.raises(ValueError, match="2 seeds x 4 classes"):
        difference_interval(attack=torch.rand(3, 4), control=torch.rand(2, 4))
    with pytest.raises(ValueError, match="1 seeds x 5 classes"):
        difference_interval(attack=torch.rand(3, 4), control=torch.rand(1, 5))
    with pytest.raises(ValueError, match="finite"):
        difference_interval(attack=torch.full((3, 4), math.nan), control=torch.rand(1, 4))


def test_exchanging_attack_and_control_mirrors_the_difference() -> None:
    attack, control = torch.rand(3, 8), torch.rand(3, 8)
    forth = difference_interval(attack=attack, control=control)
    back = difference_interval(attack=control, control=attack)
    assert (forth.value, forth.low, forth.high) == pytest.approx((-back.value, -back.high, -back.low))


def test_the_upper_limit_of_a_maximum_takes_the_highest_arm_in_every_resample() -> None:
    # The second arm is one minus the first. Drawing 4 of 5 seeds, one of the two is above .7 in 70 of 625
    # ways, above .75 in 30: nine tenths are reached at .75. Alone, either arm reaches them at .7.
    arm = rates(*[[rate] * 30 for rate in (0.1, 0.3, 0.5, 0.7, 0.9)])
    best, found = maximum_interval(torch.stack([arm, 1 - arm]), level=0.8, resample_count=20_000)
    assert best == 0, "the first of equals"
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.5, 0.3, 0.75, 150))


@settings(max_examples=40, deadline=None)
@given(values=rate_tables(), seed=st.integers(0, 3))
def test_the_maximum_of_a_single_arm_has_the_interval_of_its_mean(values: torch.Tensor, seed: int) -> None:
    found = maximum_interval(values[None], resample_count=300, seed=seed)
    assert found == (0, cluster_interval(values, resample_count=300, seed=seed))


@settings(max_examples=40, deadline=None)
@given(values=rate_tables(), data=st.data())
def test_an_arm_that_is_below_everywhere_changes_nothing(values: torch.Tensor, data: st.DataObject) -> None:
    cells = st.lists(st.floats(0, 1), min_size=values.numel(), max_size=values.numel())
    below = values * torch.tensor(data.draw(cells), dtype=torch.float64).reshape(values.shape)
    _, alone = maximum_interval(values[None], resample_count=300)
    _, found = maximum_interval(torch.stack([below, values]), resample_count=300)
    assert (found.value, found.low, found.high) == pytest.approx((alone.value, alone.low, alone.high))


@settings(max_examples=40, deadline=None)
@given(values=rate_tables(), data=st.data())
def test_the_interval_of_a_maximum_holds_that_of_the_best_arm(
    values: torch.Tensor, data: st.DataObject
) -> None:
    order = data.draw(st.permutations(range(values.shape[1])))
    other = values[:, order] * data.draw(st.floats(0.8, 1))
    best, found = maximum_interval(torch.stack([other, values]), resample_count=300)
    own = cluster_interval((other, values)[best], resample_count=300)
    assert (found.value, found.low) == (own.value, own.low)
    assert own.high <= found.high <= 1
    assert found.value == max(float(other.mean()), float(values.mean()))


def test_the_interval_of_a_maximum_covers_it_nearly_as_often_as_it_says() -> None:
    """Four attacks that are equally good, the worst case: ten classes, three seeds with luck of their own."""
    generator = torch.Generator().manual_seed(3)
    torch.manual_seed(3)
    simulation_count, below, above = 150, 0, 0
    difficulty = torch.distributions.Beta(torch.tensor(6.0), torch.tensor(3.0))
    for _ in range(simulation_count):
        truth = difficulty.sample((10,)) + 0.03 * torch.randn(4, 3, 1, generator=generator)
        values = torch.binomial(torch.full((4, 3, 10), 100.0), truth.clamp(0, 1), generator=generator) / 100
        _, found = maximum_interval(values, resample_count=400)
        below += found.high < 6 / 9
        above += found.low > 6 / 9
    assert below / simulation_count <= 0.02
    assert above / simulation_count <= 0.1


@pytest.mark.parametrize(
    "values", [torch.zeros(0, 2, 3), torch.zeros(2, 0, 3), torch.tensor([[[0.5]], [[math.nan]]])]
)
def test_a_maximum_needs_an_arm_and_finite_values(values: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="maximum"):
        maximum_interval(values)
