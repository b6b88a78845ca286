import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmi.report import numbers


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.97, ".97"),
        (1.0, "1.00"),
        (0.0, "0"),
        (-0.0, "0"),
        (0.004, ".004"),
        (0.9987, ".999"),
        (0.99999, ">.9999"),
        (0.00001, "<.0001"),
        (1.0049, "1.00"),
        (1.163, "1.16"),
        (-0.125, "−.12"),
        (23.47, "23.5"),
        (1234.4, "1,234"),
        (76800, "76,800"),
        (-3, "−3"),
    ],
)
def test_a_number_is_written_as_counted_by_hand(value, text):
    assert numbers.number(value) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.9876, ".988"), (1.0, "1.000"), (0.9997, ".9997"), (0.0, "0"), (12.3456, "12.3"), (4, "4")],
)
def test_numbers_that_lie_close_together_may_have_three_decimals(value, text):
    assert numbers.number(value, decimals=3) == text


def test_an_estimate_carries_its_interval_and_n():
    assert numbers.estimate({"value": 0.97, "low": 0.93, "high": 0.99, "n": 30}) == ".97 [.93, .99], n = 30"
    assert numbers.estimate(0.5) == ".50"
    assert numbers.estimate(None) == "not computed"


@given(st.floats(min_value=-1e6, max_value=1e6, allow_nan=False))
def test_a_printed_number_is_right_to_half_its_last_digit(value):
    text = numbers.number(value)
    bare = text.lstrip("<>").replace("−", "-").replace(",", "")
    decimals = len(bare.partition(".")[2])
    slack = 0.5 * 10**-decimals * (1 + 1e-9) + 1e-9 * abs(value)
    if text[0] not in "<>":
        assert abs(float(bare) - value) <= slack
    elif text[0] == "<":
        assert value < float(bare)
    else:
        assert value > float(bare)
    assert not re.match(r"−?0\.", text), "no zero before the point"


@given(st.floats(min_value=0, max_value=1, exclude_min=True, exclude_max=True))
def test_a_rate_inside_the_unit_interval_never_reads_as_none_or_all(value):
    assert numbers.number(value) not in ("0", ".00", "1.00")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.2, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (131.4, "2 min 11 s"),
        (11_100, "3 h 05 min"),
        (352_800, "4 d 02 h"),
    ],
)
def test_a_duration_is_written_in_two_units(seconds, text):
    assert numbers.duration(seconds) == text


def test_bytes_and_moments_are_written_plainly():
    assert numbers.size(1_432_000_000) == "1.4 GB"
    assert numbers.size(12) == "12 bytes"
    assert numbers.moment("2026-02-03T14:05:09+00:00") == "2026-02-03 14:05 UTC"
    assert numbers.moment("2026-02-03T14:05:09+02:00") == "2026-02-03 14:05 +0200"
    assert numbers.moment("2026-02-03T14:05:09Z") == "2026-02-03 14:05 UTC"
