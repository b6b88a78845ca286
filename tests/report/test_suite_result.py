import json
import math
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from patchmi.report.result import result_schema
from patchmi.report.suite_result import SuiteInvalid, read_suite, suite_bytes, suite_schema, validate_suite

REQUIRED = {
    "": "schema title description small_note created patchmi_version command environment seeds "
    "count_per_class wall_seconds targets rows published curves",
    "environment": "python torch machine processor threads precision peak_memory_bytes",
    "targets.0": "name architecture private class_count accuracy judges disjoint_judge",
    "targets.0.judges.0": "name architecture accuracy",
    "rows.0": "id target attack public defence state error folder settings "
    "scores controls verdict seconds queries peak_memory_bytes steps",
    "rows.0.scores": "judge_top1 judge_top5 confidence consensus_top1 worst_class_top1 target_top1 precision "
    "recall density coverage frechet_distance student_accuracy disjoint_top1",
    "rows.0.scores.recall": "value low high n",
    "rows.0.controls": "random untrained_attack public_selected permuted_labels held_out",
    "rows.0.queries": "forward backward images",
    "published.0": "target attack public note scores",
    "curves.0": "title along scores points",
    "curves.0.points.0": "row x",
}
FIELDS = [(parent, name) for parent, names in REQUIRED.items() for name in names.split()]


def at(document, path: str):
    for step in filter(None, path.split(".")):
        document = document[int(step) if step.isdigit() else step]
    return document


def fault_of(document) -> str:
    with pytest.raises(SuiteInvalid) as caught:
        validate_suite(document)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("$")
    assert ";" in line, "a remedy follows the fault"
    return line


def test_the_schema_is_itself_valid_and_takes_a_whole_suite(suite):
    Draft202012Validator.check_schema(suite_schema())
    validate_suite(suite)


def test_every_part_of_the_other_schema_that_is_pointed_to_is_there():
    pointers = {
        value.removeprefix("result.schema.json#/")
        for value in texts_in(suite_schema())
        if value.startswith("result.schema.json#/")
    }
    assert len(pointers) > 10
    for pointer in pointers:
        assert at(result_schema(), pointer.replace("/", "."))


def texts_in(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for child in value.values() if isinstance(value, dict) else value:
            yield from texts_in(child)


@pytest.mark.parametrize(("parent", "name"), FIELDS)
def test_each_required_field_is_missed_by_name_and_place(suite, parent, name):
    del at(suite, parent)[name]
    line = fault_of(suite)
    if (parent, name) == ("rows.0", "state"):
        assert line.startswith("$.rows[0]")
    else:
        place = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in parent.split(".") if step)
        assert line.startswith(f"${place}: the field '{name}' is missing")


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("schema", "patchmi.result/1", "$.schema"),
        ("created", "yesterday", "$.created"),
        ("created", "2026-02-03T14:05:09", "$.created"),
        ("seeds", [], "$.seeds"),
        ("count_per_class", 0, "$.count_per_class"),
        ("wall_seconds", math.nan, "$.wall_seconds"),
        ("small_note", "", "$.small_note"),
        ("targets", [], "$.targets"),
        ("targets.0.name", "../mnist", "$.targets[0].name"),
        ("targets.1.name", "mnist", "$.targets"),
        ("targets.0.accuracy", 0.98, "$.targets[0].accuracy"),
        ("rows.1.id", "mnist/general/devanagari/none", "$.rows"),
        ("rows.0.target", "svhn", "$.rows[0].target"),
        ("rows.0.state", "running", "$.rows[0].state"),
        ("rows.0.attack", "a/b", "$.rows[0].attack"),
        ("rows.0.verdict", None, "$.rows[0].verdict"),
        ("rows.0.seconds", -1.0, "$.rows[0].seconds"),
        ("rows.0.scores.judge_top1.value", 97.0, "$.rows[0].scores.judge_top1.value"),
        ("rows.0.scores.recall", {"value": 0.5, "low": 0.6, "high": 0.4, "n": 3}, "$.rows[0].scores.recall"),
        ("rows.3.error", None, "$.rows[3].error"),
        ("published.0.target", "svhn", "$.published[0].target"),
        ("published.0.scores", {"accuracy": 0.4}, "$.published[0].scores"),
        ("published.0.scores.judge_top1", 47.54, "$.published[0].scores.judge_top1"),
        ("curves.0.scores", ["loss"], "$.curves[0].scores[0]"),
        ("curves.0.points.1.row", "mnist/weight-4/strokes/none", "$.curves[0].points[1].row"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(suite, path, value, place):
    parent, _, name = path.rpartition(".")
    at(suite, parent)[int(name) if name.isdigit() else name] = value
    assert fault_of(suite).startswith(place)


@pytest.mark.parametrize(
    "folder",
    ["/etc", "cells/../../x", "..", ".", "cells/./x", "javascript:alert(1)", "a//b", "https://a.b", ""],
)
def test_a_folder_that_leads_out_of_the_suite_is_refused(suite, folder):
    suite["rows"][0]["folder"] = folder
    assert fault_of(suite).startswith("$.rows[0].folder")


@pytest.mark.parametrize("folder", ["cells/row/mnist/patch-mi/a.b_c/none", "x", None, "a..b/.c"])
def test_a_folder_within_the_suite_is_taken(suite, folder):
    suite["rows"][0]["folder"] = folder
    validate_suite(suite)


def test_a_row_without_a_result_needs_no_numbers(suite):
    bare = "id target attack public defence state error folder settings"
    for place in (3, 11):
        suite["rows"][place] = {name: suite["rows"][place][name] for name in bare.split()}
    validate_suite(suite)


def test_a_target_that_was_not_opened_yet_is_taken(suite):
    suite["targets"][1].update(
        class_count=None, accuracy=None, judges=[], disjoint_judge=None, shown_classes=[]
    )
    validate_suite(suite)


def test_a_distance_may_be_above_one_and_a_percentage_is_told_apart(suite):
    suite["published"][0]["scores"] = {"frechet_distance": 211.4, "density": 1.3}
    validate_suite(suite)
    suite["published"][0]["scores"]["recall"] = 31
    assert "percentages divided by 100" in fault_of(suite)


def test_fields_of_a_later_version_are_let_through(suite):
    suite["cluster"] = {"nodes": 3}
    suite["rows"][0]["scores"]["kernel_distance"] = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 30}
    validate_suite(suite)


def test_what_is_written_is_read_back_the_same(suite, tmp_path: Path):
    path = tmp_path / "suite.json"
    path.write_bytes(suite_bytes(suite))
    assert read_suite(path) == suite
    assert suite_bytes(read_suite(path)) == path.read_bytes()


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"\xff\xfe", b'{"schema": NaN}', json.dumps({"schema": "x"}).encode()]
)
def test_a_file_that_is_no_suite_is_refused_in_one_line_with_its_name_and_remedy(content, tmp_path: Path):
    path = tmp_path / "suite.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SuiteInvalid) as caught:
        read_suite(path)
    assert str(path) in str(caught.value)
    assert "patchmi suite" in str(caught.value)
    assert "patchmi score" not in str(caught.value)
    assert "\n" not in str(caught.value)
