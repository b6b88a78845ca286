"""What is said of defences, and above all what is not."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from patchmi.claims import forbidden_claims_in
from patchmi.metrics import cluster_interval
from patchmi.suite.plane_words import Compared, Power, bench_power, conclusion


def rates(mean: float, *, spread: float = 0.02) -> Tensor:
    """Three networks, ten classes, the same spread in each."""
    steps = torch.linspace(-spread, spread, 10, dtype=torch.float64)
    return (mean + steps).repeat(3, 1)


def point(
    name: str,
    leakage: float | None,
    *,
    accuracy: float = 0.98,
    line: float | None = 0.9,
    tested: bool = True,
    spread: float = 0.02,
) -> Compared:
    values = None if leakage is None else rates(leakage, spread=spread)
    return Compared(
        name,
        name.split()[0],
        cluster_interval(rates(accuracy)),
        None if values is None else cluster_interval(values),
        values,
        line,
        tested,
    )


POWER = Power(True, "")
NONE, SMOOTHED = point("none", 0.9), point("label-smoothing 0.1", 0.92)


def test_a_defence_below_the_undefended_network_and_below_the_line_is_named_with_its_numbers() -> None:
    said = conclusion([NONE, SMOOTHED, point("mid 0.1", 0.5, accuracy=0.96), point("bido 1", 0.9)], POWER)
    assert said.startswith("mid 0.1, at accuracy 0.96 [")
    assert "from 0.90 [0.89, 0.91] to 0.50 [0.49, 0.51]" in said
    assert "(0.90)" in said
    assert "other 1 settings the intervals do not bear this out" in said
    assert "of no others" in said


@pytest.mark.parametrize("network_count", [1, 2])
def test_what_few_networks_showed_is_said_with_its_numbers_and_not_recommended(network_count: int) -> None:
    points = [NONE, SMOOTHED, point("mid 0.1", 0.5, accuracy=0.96)]
    assert "nothing is recommended" not in conclusion(points, POWER)
    few = [replace(one, values=None if one.values is None else one.values[:network_count]) for one in points]
    said = conclusion(few, POWER)
    assert "to 0.50 [0.49, 0.51]" in said
    assert "But fewer than 3 networks of each were trained" in said
    assert "nothing is recommended yet. This speaks" in said


@pytest.mark.parametrize(
    "weak",
    [
        point("mid 0.1", 0.5, line=0.45),  # stopping early gives away less at that accuracy
        point("mid 0.1", 0.5, line=None),  # nobody knows what stopping early does at that accuracy
        point("mid 0.1", 0.5, tested=False),  # the attack that is meant for it was not run
        point("mid 0.1", 0.87, spread=0.3),  # the intervals overlap
        point("mid 0.1", 0.95),
    ],
)
def test_what_the_intervals_do_not_bear_out_is_not_recommended(weak: Compared) -> None:
    said = conclusion([NONE, SMOOTHED, weak], POWER)
    assert said.startswith("The defended setting did not lower")
    assert said.endswith("gives up at its accuracy; nothing is recommended.")
    both = conclusion([NONE, SMOOTHED, weak, replace(weak, name="mid 0.2")], POWER)
    assert both.startswith("None of the 2 defended settings lowered")
    assert both.endswith("gives up at their accuracy; nothing is recommended.")


def test_reference_lines_are_no_defences_that_held() -> None:
    said = conclusion([NONE, point("early-stopping 0.9", 0.1), point("label-smoothing 0.1", 0.1)], POWER)
    assert said.startswith("Nothing can be said yet")


def test_without_power_nothing_is_said_of_any_defence() -> None:
    said = conclusion([NONE, SMOOTHED, point("mid 0.1", 0.1)], Power(False, ""))
    assert said.startswith("No defence is recommended and none is rejected")
    assert "mid" not in said


def test_a_difference_too_small_to_be_written_has_no_minus() -> None:
    said = bench_power([NONE, point("label-smoothing 0.1", 0.898)], 0.2).sentence
    assert "+0.00 [+0.00, +0.00]" in said


@pytest.mark.parametrize(
    ("points", "control", "has_power", "words"),
    [
        ([NONE, SMOOTHED], 0.2, True, "label-smoothing 0.1 did not lower judge top-1 by 0.1 or more (+0.02"),
        ([NONE, point("label-smoothing 0.1", 0.7)], 0.2, False, "changed judge top-1 by -0.20"),
        # one of its strengths is enough
        ([NONE, point("label-smoothing 0.4", 0.7), SMOOTHED], 0.2, True, "label-smoothing 0.1 did not"),
        # all one can say is that it may have fallen, or not
        ([NONE, point("label-smoothing 0.1", 0.88, spread=0.4)], 0.2, False, "cannot be told from none"),
        ([NONE, SMOOTHED], 0.85, False, "0.85 of the best control's images"),
        ([NONE, point("mid 0.1", 0.5)], 0.2, None, "its positive control, is missing"),
        ([point("none", None), SMOOTHED], 0.2, None, "has not been attacked yet"),
        ([SMOOTHED], 0.2, None, "has not been attacked yet"),
    ],
)
def test_the_bench_has_power_if_it_sees_what_is_known(
    points: list[Compared], control: float, has_power: bool | None, words: str
) -> None:
    power = bench_power(points, control)
    assert power.has_power is has_power
    assert words in power.sentence


def test_no_sentence_claims_what_no_audit_can() -> None:
    held, weak = point("mid 0.1", 0.5), point("mid 0.1", 0.95)
    powers = [
        bench_power([NONE, other], control)
        for other in (SMOOTHED, point("label-smoothing 0.1", 0.5), weak)
        for control in (0.1, 0.9)
    ]
    for power in powers:
        for last in (held, weak):
            text = f"{conclusion([NONE, SMOOTHED, last], power)} {power.sentence}"
            assert forbidden_claims_in(text) == []
