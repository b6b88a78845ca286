from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchmi.report.suite_table import COLUMN_MEANINGS, COLUMNS, Line, lines_of, path_of, table_of, value_at


def heads(suite: dict[str, Any], target: str) -> list[str]:
    """The lines of a table as `attack/public`, published ones with a star."""
    found = []
    for line in lines_of(suite, target):
        entry = suite[line.kind][line.position]
        found.append(f"{entry['attack']}/{entry['public']}" + "*" * (line.kind == "published"))
    return found


def test_published_numbers_stand_under_the_row_or_the_attack_they_belong_to(suite):
    assert heads(suite, "mnist") == [
        "general/devanagari",
        "general/strokes",
        "general/None*",
        "variational/devanagari",
        "variational/strokes",
        "patch-mi/devanagari",
        "patch-mi/devanagari*",
        "patch-mi/strokes",
        "weight-1/strokes",
        "weight-3/strokes",
        "weight-10/strokes",
    ]
    assert not [head for head in heads(suite, "letters") if head.endswith("*")]


def test_published_numbers_that_meet_no_row_are_kept(suite):
    general, patch_mi = suite["published"]
    suite["published"] += [
        {**general, "attack": "generative"},
        {**patch_mi, "public": "omniglot"},
        {**patch_mi, "target": "letters", "attack": "generative", "public": "strokes"},
    ]
    assert heads(suite, "mnist")[5:9] == [
        "patch-mi/devanagari",
        "patch-mi/devanagari*",
        "patch-mi/strokes",
        "patch-mi/omniglot*",
    ]
    assert heads(suite, "mnist")[-1] == "generative/None*"
    assert heads(suite, "letters")[-1] == "generative/strokes*"


def test_rows_of_one_attack_stand_together_wherever_they_come_from(suite):
    suite["rows"].append({**suite["rows"][0], "id": "late", "public": "omniglot"})
    assert heads(suite, "mnist")[:4] == [
        "general/devanagari",
        "general/strokes",
        "general/omniglot",
        "general/None*",
    ]


def test_with_several_defences_a_published_number_stands_under_the_last_row_of_its_public_set(suite):
    suite["rows"].insert(5, {**suite["rows"][4], "id": "defended", "defence": "noise"})
    place = heads(suite, "mnist").index("patch-mi/devanagari*")
    assert lines_of(suite, "mnist")[place - 1] == Line("rows", 5)


def test_a_column_without_any_number_is_left_out_and_a_published_number_keeps_it(suite):
    names = [column.name for column in COLUMNS]
    assert [column.name for column in table_of(suite, "mnist").columns] == names
    names.remove("student_accuracy")
    assert [column.name for column in table_of(suite, "letters").columns] == names
    suite["published"].append(
        {
            "target": "letters",
            "attack": "general",
            "public": None,
            "note": "",
            "scores": {"student_accuracy": 0.2},
        }
    )
    assert "student_accuracy" in [column.name for column in table_of(suite, "letters").columns]


def test_a_row_that_failed_lends_no_number_even_if_it_has_some(suite):
    suite["rows"][0].update(state="failed", error="killed")
    assert path_of(suite, Line("rows", 0), "judge_top1") is None
    assert value_at(suite, Line("rows", 0), "seconds") is None


def test_the_best_control_is_the_highest_judge_top1_below_the_ceiling(suite):
    controls = suite["rows"][0]["controls"]
    controls["random"]["judge_top1"] = {"value": 0.6, "low": 0.5, "high": 0.7, "n": 3}
    controls["public_selected"] = None
    assert controls["held_out"]["judge_top1"]["value"] > 0.6
    assert path_of(suite, Line("rows", 0), "best_control") == ("rows", 0, "controls", "random", "judge_top1")
    suite["rows"][0]["controls"] = dict.fromkeys(controls)
    assert path_of(suite, Line("rows", 0), "best_control") is None


def test_an_n_that_all_rows_share_is_lifted_out(suite):
    suite["rows"][1]["scores"]["recall"]["n"] = 29
    shared = table_of(suite, "mnist").shared_n
    assert shared["judge_top1"] == 30
    assert shared["student_accuracy"] == 1000
    assert "recall" not in shared
    assert "seconds" not in shared


def set_interval(suite, place: int, score: str, low: float, value: float, high: float) -> None:
    suite["rows"][place]["scores"][score] = {"value": value, "low": low, "high": high, "n": 30}


@pytest.mark.parametrize(
    ("score", "intervals", "clear"),
    [
        ("recall", [(0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (0.0, 0.1, 0.2)], 1),
        ("recall", [(0.1, 0.2, 0.3), (0.3, 0.5, 0.6), (0.0, 0.1, 0.2)], None),
        ("recall", [(0.1, 0.2, 0.9), (0.4, 0.5, 0.6), (0.0, 0.1, 0.2)], None),
        ("frechet_distance", [(10.0, 20.0, 30.0), (40.0, 50.0, 60.0), (31.0, 35.0, 39.0)], 0),
        ("frechet_distance", [(10.0, 20.0, 31.0), (40.0, 50.0, 60.0), (31.0, 35.0, 39.0)], None),
        ("density", [(0.1, 0.2, 0.3), (0.4, 0.5, 0.6), (0.0, 0.1, 0.2)], None),
    ],
)
def test_only_a_value_whose_interval_is_clear_of_all_others_is_marked(suite, score, intervals, clear):
    suite["rows"], suite["published"] = suite["rows"][:3], []
    for place, interval in enumerate(intervals):
        set_interval(suite, place, score, *interval)
    assert table_of(suite, "mnist").clear.get(score) == clear


@given(st.lists(st.tuples(*[st.floats(0, 1)] * 3).map(sorted), min_size=1, max_size=5))
def test_a_marked_value_beats_every_value_that_the_other_rows_may_have(intervals):
    rows: list[dict[str, Any]] = [
        {
            "target": "t",
            "attack": f"a{place}",
            "public": "p",
            "defence": "none",
            "state": "done",
            "controls": {},
            "queries": {"images": 1},
            "seconds": 1.0,
            "scores": {column.name: None for column in COLUMNS}
            | {"coverage": {"value": value, "low": low, "high": high, "n": 3}},
        }
        for place, (low, value, high) in enumerate(intervals)
    ]
    clear = table_of({"rows": rows, "published": []}, "t").clear.get("coverage")
    beating = [
        place
        for place, (low, _, _) in enumerate(intervals)
        if len(intervals) > 1 and all(low > high for _, _, high in intervals[:place] + intervals[place + 1 :])
    ]
    assert beating == ([] if clear is None else [clear])


def test_every_column_says_what_it_means():
    assert list(COLUMN_MEANINGS) == [column.name for column in COLUMNS]
