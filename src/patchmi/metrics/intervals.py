"""Intervals for measures that were taken class by class and seed by seed.

Reference: Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007): rows and columns of a
crossed table are resampled apart. Rao and Wu, "Resampling inference with complex survey data", JASA 83
(1988): draw one fewer than there are, so that the variance over a handful of seeds is not understated.
Clopper and Pearson, Biometrika 26 (1934).

Images of one run share a generator and are not independent; therefore n counts classes x seeds, never
images.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from scipy.special import betaincinv, stdtrit
from torch import Tensor

FEW_CLASSES = 20
"""With fewer classes the percentile bootstrap covers too little, and a Student interval stands beside it."""

_GRID_SIZE = 512


@dataclass(frozen=True)
class Estimate:
    """A measured value with its confidence interval and the number of observations behind both."""

    value: float
    low: float
    high: float
    n: int


def clopper_pearson(successes: int, trials: int, level: float = 0.95) -> Estimate:
    """Exact two-sided interval of a proportion of independent trials.

    Raises:
        ValueError: If there is no trial, or successes are not between 0 and `trials`.
    """
    if not 0 <= successes <= trials or trials == 0:
        raise ValueError(
            f"{successes} successes of {trials} trials: need 0 <= successes <= trials and trials > 0"
        )
    tail = (1 - level) / 2
    low = float(betaincinv(successes, trials - successes + 1, tail)) if successes > 0 else 0.0
    high = float(betaincinv(successes + 1, trials - successes, 1 - tail)) if successes < trials else 1.0
    return Estimate(value=successes / trials, low=low, high=high, n=trials)


def zero_success_upper_bound(class_count: int, level: float = 0.95) -> float:
    """Share of classes that may be exposed although none of C was: 1 - (1 - level)^(1/C), one-sided.

    Raises:
        ValueError: If `class_count` is not positive.
    """
    if class_count < 1:
        raise ValueError(f"class_count is {class_count}: an upper bound needs at least one class")
    return 1 - (1 - level) ** (1 / class_count)


def cluster_interval(
    values: Float[Tensor, "seeds classes"],
    *,
    level: float = 0.95,
    resample_count: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> Estimate:
    """Interval of the mean over classes and seeds, each value a mean over one seed's and class's images.

    Classes and seeds are resampled apart (one seed's generator serves all classes, so its luck is shared by
    them). With fewer than 20 classes a Student interval over the class means is made too, and the wider
    limits are quoted.

    A proportion (`bounds` 0 and 1) whose class means are all 0 or all 1 has no spread to resample, and its
    interval is widened to Clopper-Pearson's over the class count. One class alone gives a Student interval
    over its seeds; one value alone gives the bounds.

    Args:
        values: A measure per seed and class.
        level: Confidence level, between 0 and 1.
        resample_count: Bootstrap resamples; 2,000 or more for anything that is printed.
        seed: Seed of the resampling. Equal seeds and shapes give equal resamples.
        bounds: Least and greatest possible value, to which the limits are clipped (`math.inf` is allowed).

    Raises:
        ValueError: If a value is not finite, there is none, or one value has neither bounds nor company.
    """
    if values.numel() == 0 or not bool(values.isfinite().all()):
        raise ValueError("an interval needs finite values, at least one seed and at least one class")
    if values.numel() == 1 and bounds is None:
        raise ValueError("one value has no interval: measure more classes or seeds, or give its bounds")
    values = values.double().cpu()
    low, high = _bootstrap_limits(values[None], level=level, resample_count=resample_count, seed=seed)
    if values.shape[1] < FEW_CLASSES:
        student_low, student_high = _student_limits(_unit_means(values)[None], level)
        low, high = min(low, float(student_low)), max(high, float(student_high))
    class_means = values.mean(dim=0)
    if bounds == (0.0, 1.0) and (bool((class_means == 0).all()) or bool((class_means == 1).all())):
        exact = clopper_pearson(int(class_means.sum()), class_means.numel(), level)
        low, high = min(low, exact.low), max(high, exact.high)
    return _estimate(values, low, high, bounds)


def maximum_interval(
    values: Float[Tensor, "arms seeds classes"],
    *,
    level: float = 0.95,
    resample_count: int = 2000,
    seed: int = 0,
    bounds: tuple[float, float] | None = (0.0, 1.0),
) -> tuple[int, Estimate]:
    """The arm with the highest mean, and an interval of the highest mean of all arms.

    The upper limit is that of the bootstrap which draws the same classes and seeds for all arms and takes the
    highest arm anew each time: arms that are nearly as good raise it. It is never below the best arm's own
    (`cluster_interval`), which has the Student interval where classes are few. The lower limit is the best
    arm's own: the maximum is at least what that arm reaches, and the highest of resampled means would put
    the limit higher still, when the mean of an arm that was chosen for being the highest is already too high.
    Even so it costs coverage at the lower end where several arms are equally good. Simulated with 10 classes
    and 3 seeds, of 95 % there are 96 left with two such arms and 93 with four that find the same classes
    hard, 75 with eight that have nothing in common; with one arm .1 above all others, 94 and more.

    An arm that is below another one everywhere changes nothing. A single arm has its `cluster_interval`.

    Args:
        values: A measure per arm, seed and class; seeds and classes mean the same in all arms.
        level: Confidence level, between 0 and 1.
        resample_count: Bootstrap resamples.
        seed: Seed of the resampling.
        bounds: Least and greatest possible value, to which the limits are clipped.

    Returns:
        The place of the best arm, the first of equals, and the estimate; n counts the best arm's values.

    Raises:
        ValueError: If there is no arm, a value is not finite, or one value has neither bounds nor company.
    """
    if values.numel() == 0 or not bool(values.isfinite().all()):
        raise ValueError("a maximum needs finite values, at least one arm, one seed and one class")
    values = values.double().cpu()
    best = int(values.mean(dim=(1, 2)).argmax())
    own = cluster_interval(values[best], level=level, resample_count=resample_count, seed=seed, bounds=bounds)
    _, high = _bootstrap_limits(values, level=level, resample_count=resample_count, seed=seed)
    return best, _estimate(values[best], own.low, max(own.high, high), bounds)


def difference_interval(
    *,
    attack: Float[Tensor, "seeds classes"],
    control: Float[Tensor, "control_seeds control_classes"],
    level: float = 0.95,
    resample_count: int = 2000,
    seed: int = 0,
) -> Estimate:
    """Interval of the mean of attack - control, rates in [0, 1] paired by class and (if both have them) seed.

    Made to decide by, it is monotone: no limit falls when a rate of the attack rises. `cluster_interval` is
    not: one class that gives away far more than the others adds so much spread that the lower limit falls.
    Here the lower limit is the best one of the same differences capped at any ceiling (a bound for smaller
    values bounds these too, and of all smaller values the capped ones bound best); the upper limit likewise
    with floors. That costs coverage where classes are few: simulated, of 95 % there are 94 left with 10
    classes, 92 with 5, 86 with 3 and 78 with 2, where the limits are the two classes. Constant differences
    keep their zero width: what a few classes without any success leave open, `zero_success_upper_bound` says.

    Args:
        attack: The attack's rate per seed and class.
        control: The control's; with one seed it stands against each of the attack's.
        level: Confidence level, between 0 and 1.
        resample_count: Bootstrap resamples.
        seed: Seed of the resampling; differences from several controls with one seed share their resamples.

    Raises:
        ValueError: If the control has other classes, or neither one seed nor the attack's number of seeds.
    """
    if control.shape[1] != attack.shape[1] or control.shape[0] not in (1, attack.shape[0]):
        raise ValueError(
            f"the control has {control.shape[0]} seeds x {control.shape[1]} classes, the attack "
            f"{attack.shape[0]} x {attack.shape[1]}: score the same classes, once or once for each seed"
        )
    difference = attack.double().cpu() - control.double().cpu()
    bounds = (-1.0, 1.0)
    if not bool(difference.isfinite().all()) or difference.numel() == 0:
        raise ValueError("a difference needs finite rates, at least one seed and at least one class")
    low, high = _bootstrap_limits(difference[None], level=level, resample_count=resample_count, seed=seed)
    if difference.shape[1] < FEW_CLASSES:
        means = _unit_means(difference)
        grid = torch.linspace(float(means.min()), float(means.max()), _GRID_SIZE, dtype=means.dtype)
        thresholds = torch.cat([means, grid])[:, None]
        low = min(low, float(_student_limits(torch.minimum(means, thresholds), level)[0].max()))
        high = max(high, float(_student_limits(torch.maximum(means, thresholds), level)[1].min()))
    return _estimate(difference, low, high, bounds)


def _estimate(
    values: Float[Tensor, "seeds classes"], low: float, high: float, bounds: tuple[float, float] | None
) -> Estimate:
    """The mean between its limits, clipped to the bounds."""
    value = float(values.mean())
    if bounds is not None:
        low, high = max(low, bounds[0]), min(high, bounds[1])
    # Rounding in a quantile of equal numbers must not put the value outside its own interval.
    return Estimate(value=value, low=min(low, value), high=max(high, value), n=values.numel())


def _unit_means(values: Float[Tensor, "seeds classes"]) -> Float[Tensor, " units"]:
    """What the Student interval takes for independent: the classes, or the seeds of a single class."""
    return values.mean(dim=0) if values.shape[1] > 1 else values[:, 0]


def _bootstrap_limits(
    values: Float[Tensor, "arms seeds classes"], *, level: float, resample_count: int, seed: int
) -> tuple[float, float]:
    """Percentile limits of the highest arm's mean over seeds x classes, which are drawn once for all arms."""
    generator = torch.Generator().manual_seed(seed)
    _, seed_count, class_count = values.shape
    class_weights = _draw_weights(class_count, resample_count, generator)
    seed_weights = _draw_weights(seed_count, resample_count, generator)
    means = ((seed_weights @ values) * class_weights).sum(dim=2).amax(dim=0)
    tails = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=means.dtype)
    low, high = torch.quantile(means, tails).tolist()
    return low, high


def _draw_weights(
    count: int, resample_count: int, generator: torch.Generator
) -> Float[Tensor, "resamples items"]:
    """Rows that sum to 1: how often each item came up in `count - 1` draws with replacement (1 at least)."""
    draw_count = max(1, count - 1)
    drawn: Int[Tensor, "resamples draws"] = torch.randint(
        count, (resample_count, draw_count), generator=generator
    )
    weights = torch.zeros(resample_count, count, dtype=torch.float64)
    return weights.scatter_add_(1, drawn, torch.full(drawn.shape, 1 / draw_count, dtype=torch.float64))


def _student_limits(
    means: Float[Tensor, "rows units"], level: float
) -> tuple[Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Student limits of each row's mean; infinite for a single unit, which has no spread."""
    unit_count = means.shape[1]
    centre = means.mean(dim=1)
    if unit_count == 1:
        return centre - math.inf, centre + math.inf
    margin = float(stdtrit(unit_count - 1, (1 + level) / 2)) / math.sqrt(unit_count) * means.std(dim=1)
    return centre - margin, centre + margin
