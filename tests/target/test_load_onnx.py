"""ONNX files: answers, where their tensors may lie, and what they grant."""

import copy
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from patchmi.errors import UnsafeInput
from patchmi.networks import ARCHITECTURES
from patchmi.target import (
    AccessDenied,
    TargetFile,
    TargetInvalid,
    WhiteBox,
    answers,
    open_target,
    probe_target,
)

onnx: Any = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SIDE = 16


def make_network() -> nn.Module:
    torch.manual_seed(1)
    return ARCHITECTURES["resnet10"](class_count=4, channel_count=1, width=8).eval()


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(0))


def export(network: nn.Module, path: Path, *, batch_size: int | None = None) -> None:
    """In one file, with torch's older exporter: it takes a moment, the newer one many seconds."""
    axes = {"images": {0: "n"}} if batch_size is None else None
    torch.onnx.export(
        network, (pictures(batch_size or 2),), path, dynamo=False, input_names=["images"], dynamic_axes=axes
    )


def linear(path: Path, **changes: Any) -> Any:
    """A linear classifier of 2×2 pixels, whose input, output and place of its weights can be chosen."""
    made = onnx.helper
    shape = changes.get("shape", ["n", 1, 2, 2])
    pixel_count = 3072 if 32 in shape else 4
    weights = onnx.TensorProto(name="w", data_type=onnx.TensorProto.FLOAT, dims=[pixel_count, 3])
    if "location" in changes:
        weights.data_location = onnx.TensorProto.EXTERNAL
        weights.external_data.add(key="location", value=changes["location"])
    else:
        weights.raw_data = np.arange(3 * pixel_count, dtype=np.float32).tobytes()
    numbers = changes.get("numbers", onnx.TensorProto.FLOAT)
    nodes = [
        made.make_node("Cast", ["x"], ["c"], to=onnx.TensorProto.FLOAT),
        made.make_node("Flatten", ["c"], ["f"]),
        made.make_node("MatMul", ["f", "w"], ["m"]),
        made.make_node("Cast", ["m"], ["y"], to=numbers),
        made.make_node("ArgMax", ["m"], ["label"], axis=1, keepdims=0),
    ]
    inputs = [made.make_tensor_value_info("x", numbers, shape)]
    if changes.get("second_input"):
        inputs.append(made.make_tensor_value_info("z", numbers, ["n"]))
    scores = made.make_tensor_value_info("y", numbers, ["n", 3])
    label = made.make_tensor_value_info("label", onnx.TensorProto.INT64, ["n"])
    graph = made.make_graph(
        nodes, "g", inputs, changes.get("outputs", lambda *both: both[::-1])(scores, label), [weights]
    )
    model = made.make_model(graph, opset_imports=[made.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return model


def refusal(kind: type[Exception], path: Path) -> str:
    with pytest.raises(kind) as refused:
        open_target(TargetFile(str(path)))
    assert "\n" not in str(refused.value)
    assert str(path) in str(refused.value)
    return str(refused.value)


@pytest.mark.filterwarnings("ignore")  # torch's exporter warns of itself
@pytest.mark.parametrize("batch_size", [None, 1, 4])
def test_answers_equal_torch_s_whatever_batch_the_graph_was_made_for(tmp_path, batch_size):
    network = make_network()
    export(network, tmp_path / "a.onnx", batch_size=batch_size)
    target = open_target(TargetFile(str(tmp_path / "a.onnx"))).target
    assert target.image_shape == (1, SIDE, SIDE)
    assert target.class_names == ("0", "1", "2", "3")
    images = pictures(6)
    assert torch.allclose(answers(target, images), network(images).detach(), atol=1e-4)
    one = copy.deepcopy(copy.deepcopy(target.model))(images)
    assert torch.allclose(one, network(images).detach(), atol=1e-4)


@pytest.mark.filterwarnings("ignore")
def test_an_onnx_model_grants_its_scores_and_no_gradient(tmp_path):
    export(make_network(), tmp_path / "a.onnx")
    target = open_target(TargetFile(str(tmp_path / "a.onnx"))).target
    assert target.access == "score"
    probed, findings = probe_target(target)
    assert (probed, findings) == (target, ())
    with pytest.raises(AccessDenied, match="score access only"):
        WhiteBox(target)


@pytest.mark.parametrize("numbers", ["FLOAT", "DOUBLE", "FLOAT16"])
def test_scores_are_found_beside_labels_in_every_floating_format(tmp_path, numbers):
    linear(tmp_path / "a.onnx", numbers=getattr(onnx.TensorProto, numbers))
    target = open_target(TargetFile(str(tmp_path / "a.onnx"))).target
    assert answers(target, torch.ones(2, 1, 2, 2)).tolist() == [[18.0, 22.0, 26.0]] * 2


def test_a_shape_that_the_graph_leaves_open_must_be_said(tmp_path):
    linear(tmp_path / "a.onnx", shape=["n", 1, "h", "w"])
    assert "give --image-shape" in refusal(TargetInvalid, tmp_path / "a.onnx")
    opened = open_target(TargetFile(str(tmp_path / "a.onnx"), image_shape=(1, 2, 2)))
    assert opened.target.class_count == 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"numbers": 2}, r"tensor(uint8)"),
        ({"second_input": True}, "give a model of one input"),
        ({"shape": ["n", 4]}, "N×C×H×W"),
        ({"shape": ["n", 32, 32, 3]}, "takes images N×H×W×C"),
        ({"outputs": lambda scores, label: [label]}, "one must be scores"),
    ],
)
def test_a_graph_that_is_no_classifier_of_images_is_refused_in_one_line(tmp_path, changes, words):
    linear(tmp_path / "a.onnx", **changes)
    assert words in refusal(TargetInvalid, tmp_path / "a.onnx")


@pytest.mark.parametrize("content", [b"", b"\x08\x09garbage", b"cposix\nsystem\n."])
def test_a_damaged_file_is_refused_in_one_line(tmp_path, content):
    (tmp_path / "a.onnx").write_bytes(content)
    refusal(TargetInvalid, tmp_path / "a.onnx")


# Where tensors may lie


@pytest.mark.parametrize(
    "location", ["../secret", "{outside}", "inner/../../secret", "link", "linked/secret"]
)
def test_no_tensor_is_read_from_outside_the_folder(tmp_path, location):
    folder = tmp_path / "model"
    (folder / "inner").mkdir(parents=True)
    secret = tmp_path / "secret"
    secret.write_bytes(np.arange(12, dtype=np.float32).tobytes())
    (folder / "link").symlink_to(secret)
    (folder / "linked").symlink_to(tmp_path)
    linear(folder / "a.onnx", location=location.format(outside=secret))
    assert "lies outside its folder" in refusal(UnsafeInput, folder / "a.onnx")


@pytest.mark.parametrize("depth", ["attribute", "branch"])
def test_a_tensor_outside_the_folder_is_found_at_any_depth(tmp_path, depth):
    made = onnx.helper
    model = linear(tmp_path / "a.onnx")
    tensor = onnx.TensorProto(name="t", data_type=1, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    tensor.external_data.add(key="location", value="../secret")
    constant = made.make_node("Constant", [], ["k"], value=tensor)
    if depth == "branch":
        inner = made.make_graph([constant], "b", [], [made.make_tensor_value_info("k", 1, [1])])
        constant = made.make_node("If", ["condition"], ["k"], then_branch=inner, else_branch=inner)
    model.graph.node.append(constant)
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    assert "'../secret'" in refusal(UnsafeInput, tmp_path / "a.onnx")


@pytest.mark.parametrize("location", ["beside", "inner/beside"])
def test_tensors_beside_the_model_are_read_and_hashed(tmp_path, location):
    (tmp_path / "inner").mkdir()
    numbers = np.arange(12, dtype=np.float32)
    (tmp_path / location).write_bytes(numbers.tobytes())
    linear(tmp_path / "a.onnx", location=location)
    opened = open_target(TargetFile(str(tmp_path / "a.onnx")))
    assert answers(opened.target, torch.ones(1, 1, 2, 2)).tolist() == [[18.0, 22.0, 26.0]]
    both = (tmp_path / "a.onnx").read_bytes() + (tmp_path / location).read_bytes()
    assert opened.sha256 == hashlib.sha256(both).hexdigest()
    (tmp_path / location).write_bytes((numbers * 2).tobytes())
    assert open_target(TargetFile(str(tmp_path / "a.onnx"))).sha256 != opened.sha256


@pytest.mark.parametrize("location", ["nothing", "*/_ORT_MEM_ADDR_/*", "", "."])
def test_a_tensor_that_is_not_beside_the_model_is_named(tmp_path, location):
    linear(tmp_path / "a.onnx", location=location)
    assert "is missing; copy both" in refusal(TargetInvalid, tmp_path / "a.onnx")


def test_a_model_that_is_too_large_is_not_read(tmp_path):
    with (tmp_path / "a.onnx").open("wb") as file:
        file.truncate(5 << 30)  # a hole, which takes no room on the disk
    assert "more than the 4,294,967,296" in refusal(TargetInvalid, tmp_path / "a.onnx")


def test_a_file_beside_it_counts_too(tmp_path):
    with (tmp_path / "beside").open("wb") as file:
        file.truncate(5 << 30)
    linear(tmp_path / "a.onnx", location="beside")
    assert "more than the 4,294,967,296" in refusal(TargetInvalid, tmp_path / "a.onnx")


def test_onnxruntime_is_named_where_it_cannot_be_imported(tmp_path, monkeypatch):
    linear(tmp_path / "a.onnx")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    assert "pip install 'patchmi[onnx]'" in refusal(TargetInvalid, tmp_path / "a.onnx")
