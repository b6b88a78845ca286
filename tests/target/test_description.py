"""What a file says of its own network, and what it may not say."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from patchmi.target import Description, TargetFile, TargetInvalid, open_target
from patchmi.target.description import read_description

OWN = Description("patchmi:mlp", ("Zürich", "b"), (1, 8, 8))


def write(path: Path, metadata: dict[str, str] | None) -> Path:
    save_file({"weight": torch.zeros(2)}, path, metadata)
    return path


def test_what_train_writes_is_read_again(tmp_path):
    assert read_description(write(tmp_path / "own.safetensors", OWN.metadata())) == OWN


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "os:system"},
        {"architecture": "timm:resnet18"},
        {"architecture": ""},
        {"class_names": "a, b"},
        {"class_names": "[1, 2]"},
        {"class_names": '"ab"'},
        {"image_shape": "[1, 8]"},
        {"image_shape": "[1, 8, 8.5]"},
        {"image_shape": "[1, true, 8]"},
        {"image_shape": "{}"},
        {"image_shape": "[" * 100_000},
    ],
    ids=str,
)
def test_what_train_does_not_write_is_not_believed(changes, tmp_path):
    path = write(tmp_path / "other.safetensors", {**OWN.metadata(), **changes})
    assert read_description(path) is None
    with pytest.raises(TargetInvalid, match="give --architecture"):
        open_target(TargetFile(str(path)))


def test_a_file_that_says_nothing_or_is_none_has_no_description(tmp_path):
    (tmp_path / "broken.safetensors").write_bytes(b"\xff" * 20)
    assert read_description(tmp_path / "broken.safetensors") is None
    assert read_description(tmp_path / "absent.safetensors") is None
    assert read_description(write(tmp_path / "silent.safetensors", None)) is None


def test_the_user_s_word_goes_before_the_file_s(tmp_path):
    path = write(tmp_path / "own.safetensors", OWN.metadata())
    with pytest.raises(TargetInvalid, match="resnet10"):
        open_target(TargetFile(str(path), architecture="patchmi:resnet10"))
