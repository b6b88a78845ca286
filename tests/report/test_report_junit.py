"""`junit.xml`: as another library reads it, it says what the result says."""

import copy
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from patchmi.claims import forbidden_claims_in
from patchmi.report import ResultInvalid, junit_bytes, write_report

junitparser = pytest.importorskip("junitparser")


def suite_of(result: dict[str, Any]) -> Any:
    """The one suite in the bytes, whose counts are those of its cases."""
    (suite,) = junitparser.JUnitXml.fromstring(junit_bytes(result))
    said = statistics_of(suite)
    suite.update_statistics()
    assert said == statistics_of(suite)
    return suite


def statistics_of(suite: Any) -> tuple[int, int, int, int, float]:
    return suite.tests, suite.failures, suite.errors, suite.skipped, suite.time


def outcomes_of(result: dict[str, Any]) -> list[str]:
    return [
        "failed"
        if any(isinstance(one, junitparser.Failure) for one in case.result)
        else "skipped"
        if case.is_skipped
        else "passed"
        for case in suite_of(result)
    ]


def decided(result: dict[str, Any], word: str, exposed: list[bool]) -> dict[str, Any]:
    """The result with another verdict, and its first classes exposed or not; the others say nothing."""
    result["verdict"]["word"] = word
    for entry, is_exposed in zip(result["classes"], exposed, strict=False):
        entry["exposed"] = is_exposed
    return result


def test_there_is_one_case_for_the_verdict_and_one_for_each_class(result):
    suite = suite_of(result)
    assert [case.name for case in suite] == ["verdict", *(f"class {label}: {label}" for label in range(10))]
    assert {case.classname for case in suite} == {"patchmi.patch_mi"}
    assert suite.name == "patch_mi, recipe default, on Handwritten digits, ResNet-10"
    assert suite.time == pytest.approx(131.4)
    assert suite.timestamp == "2026-02-03T14:05:09"


@pytest.mark.parametrize(
    ("word", "exposed", "outcomes"),
    [
        ("EXPOSED", [True, False], ["failed", "failed", "passed", *["skipped"] * 8]),
        ("NOT DEMONSTRATED", [False] * 10, ["passed"] * 11),
        ("INCONCLUSIVE", [True] * 5 + [False] * 5, ["skipped"] * 11),
    ],
)
def test_exposed_fails_not_demonstrated_passes_and_what_is_not_decided_is_skipped(
    result, word, exposed, outcomes
):
    assert outcomes_of(decided(result, word, exposed)) == outcomes


def test_a_failure_says_its_numbers(result):
    result["classes"][0]["consensus_top1"] = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 300}
    verdict, first, *_ = suite_of(decided(result, "EXPOSED", [True]))
    (failure,) = first.result
    assert failure.type == "EXPOSED"
    assert failure.message == failure.text
    assert failure.message.startswith(
        "Class 0 (label 0) is exposed: consensus top-1 .90 [.80, .95], n = 300;"
    )
    assert verdict.result[0].message == f"EXPOSED: {result['verdict']['sentence']}"


def test_a_case_that_is_skipped_or_passes_says_why(result):
    skipped = suite_of(decided(copy.deepcopy(result), "INCONCLUSIVE", []))
    assert [case.result[0].message.split(":")[0] for case in skipped][:2] == [
        "INCONCLUSIVE",
        "Class 0 (label 0) is not decided",
    ]
    passed = suite_of(decided(result, "NOT DEMONSTRATED", [False] * 10))
    assert [case.system_out.split(":")[0] for case in passed][:2] == [
        "NOT DEMONSTRATED",
        "Class 0 (label 0) did not stand out from its controls",
    ]


def test_names_cannot_end_an_element_or_an_attribute(result):
    name = '<script>alert("1")</script>&amp;\'\n'
    result["classes"][0]["name"] = name
    assert b"<script" not in junit_bytes(result)
    assert [case.name for case in suite_of(result)][1] == f"class 0: {name}"


def test_characters_that_xml_cannot_hold_are_dropped(result):
    result["classes"][0]["name"] = "a\x00b\x1b[31mc\ud800d\ufffee\U0001f600"
    result["target"]["name"] = "\x07bell"
    suite = suite_of(result)
    assert [case.name for case in suite][1] == "class 0: ab[31mcde\U0001f600"
    assert suite.name.endswith("on bell")


@given(name=st.text(alphabet=st.characters(exclude_categories=()), min_size=1))
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_breaks_the_document(result_of, name):
    result = result_of(2)
    result["target"]["name"] = result["classes"][0]["name"] = result["attack"]["name"] = name
    root = ET.fromstring(junit_bytes(result))
    assert [element.tag for element in root.iter("testcase")] == ["testcase"] * 3


def test_the_same_result_gives_the_same_bytes_and_stays_as_it_is(result):
    before = copy.deepcopy(result)
    assert junit_bytes(result) == junit_bytes(copy.deepcopy(result))
    assert result == before
    assert junit_bytes(result).startswith(b"<?xml version='1.0' encoding='utf-8'?>\n<testsuites ")


def test_a_result_that_breaks_its_schema_is_refused(result):
    result["classes"][0]["label"] = -1
    with pytest.raises(ResultInvalid):
        junit_bytes(result)


@pytest.mark.parametrize("word", ["EXPOSED", "NOT DEMONSTRATED", "INCONCLUSIVE"])
def test_nothing_is_claimed_that_no_audit_can_support(result, word):
    assert forbidden_claims_in(junit_bytes(decided(result, word, [True, False])).decode()) == []


def test_the_file_stands_beside_the_report(run_folder, result):
    write_report(run_folder)
    assert (run_folder / "junit.xml").read_bytes() == junit_bytes(result)
