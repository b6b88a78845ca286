import json
import math
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from patchmi.report import ResultInvalid, read_result, result_bytes, result_schema, validate_result

SCORES = (
    "judge_top1 judge_top5 confidence consensus_top1 worst_class_top1 target_top1 precision recall density "
    "coverage "
    "frechet_distance student_accuracy"
)
REQUIRED = {
    "": "schema created patchmi_version command environment target threat attack judges agreement extractor "
    "neighbours scores controls judge_scores classes neighbours_ratio history verdict not_tested artefacts",
    "environment": "python torch machine processor threads precision peak_memory_bytes",
    "target": "name architecture accuracy accuracy_interval sha256 class_count image_shape batch_norm_layers",
    "threat": "access public public_count release_context",
    "attack": "name recipe config steps seconds seeds queries notes",
    "attack.queries": "forward backward images",
    "judges.0": "name architecture trained_on accuracy accuracy_interval",
    "agreement": "judges kappa",
    "scores": SCORES,
    "scores.precision": "value low high n",
    "controls": "random untrained_attack public_selected permuted_labels held_out",
    "controls.held_out": "judge_top1 consensus_top1",
    "judge_scores.0": "judge arm top1",
    "classes.0": "label name judge_top1 consensus_top1 confidence target_top1 precision recall density "
    "coverage nearest_ratio",
    "classes.0.judge_top1": "value low high n",
    "neighbours_ratio": "value low high n",
    "history.0": "seed step seconds judge_top1 worst_class_top1 target_top1",
    "verdict": "word sentence reasons",
    "not_tested.0": "attack scope reason",
}
FIELDS = [(parent, name) for parent, names in REQUIRED.items() for name in names.split()]


def at(document, path: str):
    for step in filter(None, path.split(".")):
        document = document[int(step) if step.isdigit() else step]
    return document


def put(document, path: str, value) -> None:
    parent, _, name = path.rpartition(".")
    at(document, parent)[int(name) if name.isdigit() else name] = value


def fault_of(document) -> str:
    with pytest.raises(ResultInvalid) as caught:
        validate_result(document)
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith("$")
    assert ";" in line, "a remedy follows the fault"
    return line


def test_the_schema_is_itself_valid_and_takes_a_whole_result(result):
    Draft202012Validator.check_schema(result_schema())
    validate_result(result)


@pytest.mark.parametrize(("parent", "name"), FIELDS)
def test_each_required_field_is_missed_by_name_and_place(result, parent, name):
    del at(result, parent)[name]
    line = fault_of(result)
    place = "".join(f"[{step}]" if step.isdigit() else f".{step}" for step in parent.split(".") if step)
    assert line.startswith(f"${place}: the field '{name}' is missing")


@pytest.mark.parametrize(
    ("path", "value", "place"),
    [
        ("schema", "patchmi.result/0", "$.schema"),
        ("verdict.word", "SAFE", "$.verdict.word"),
        ("threat.access", "gray-box", "$.threat.access"),
        ("scores.judge_top1.value", 97.0, "$.scores.judge_top1.value"),
        ("scores.judge_top1.n", 0, "$.scores.judge_top1.n"),
        ("scores.judge_top1", 0.97, "$.scores.judge_top1"),
        ("classes.3.recall", -0.1, "$.classes[3].recall"),
        ("target.sha256", "3F" * 32, "$.target.sha256"),
        ("target.image_shape", [32, 32], "$.target.image_shape"),
        ("attack.seeds", [], "$.attack.seeds"),
        ("attack.seeds", ["0"], "$.attack.seeds[0]"),
        ("classes", [], "$.classes"),
        ("artefacts", {"config.json": "00"}, "$.artefacts"),
        ("created", "yesterday", "$.created"),
        ("created", "2026-02-03T14:05:09", "$.created"),
        ("agreement.kappa", [[1.0]], "$.agreement.kappa"),
        ("classes.1.label", 0, "$.classes"),
        ("classes.1.label", 10, "$.classes"),
        ("scores.recall", {"value": 0.5, "low": 0.6, "high": 0.4, "n": 3}, "$.scores.recall"),
        ("scores.density.value", math.inf, "$.scores.density.value"),
        ("history.0.judge_top1", math.nan, "$.history[0].judge_top1"),
    ],
)
def test_a_wrong_value_is_refused_with_its_place(result, path, value, place):
    put(result, path, value)
    assert fault_of(result).startswith(place)


@pytest.mark.parametrize("path", ["scores.frechet_distance", "controls.untrained_attack"])
def test_a_number_that_is_null_needs_its_reason_in_a_note(result, path):
    put(result, path, None)
    name = path.rpartition(".")[2]
    assert name in fault_of(result)
    result["notes"] = [f"The {name.replace('_', ' ')} was not computed: too few images."]
    validate_result(result)


def test_fields_of_a_later_version_are_let_through(result):
    result["power"] = {"reference": "a leaky model"}
    result["classes"][0]["diversity"] = 0.3
    result["scores"]["kernel_distance"] = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 30}
    validate_result(result)


def test_what_is_written_is_read_back_the_same(result, tmp_path: Path):
    path = tmp_path / "result.json"
    path.write_bytes(result_bytes(result))
    assert read_result(path) == result
    assert result_bytes(read_result(path)) == path.read_bytes()


def test_a_wrong_result_is_not_written(result):
    del result["scores"]["recall"]
    with pytest.raises(ResultInvalid):
        result_bytes(result)


@pytest.mark.parametrize(
    "content", [None, b"", b"{", b"[]", b"\xff\xfe", b'{"schema": NaN}', json.dumps({"schema": "x"}).encode()]
)
def test_a_file_that_is_no_result_is_refused_in_one_line_with_its_name(content, tmp_path: Path):
    path = tmp_path / "result.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ResultInvalid) as caught:
        read_result(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
