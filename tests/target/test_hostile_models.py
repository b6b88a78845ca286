"""Files made to run code when they are opened, which nothing makes run."""

import ast
import gzip
import io
import json
import os
import pickle
import random
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from patchmi.errors import UnsafeInput
from patchmi.networks import ARCHITECTURES
from patchmi.target import TargetFile, TargetInvalid, answers, open_target

SOURCES = Path(__file__).parents[2] / "src" / "patchmi"
OPTIONS: dict[str, Any] = {"architecture": "patchmi:allconv", "image_shape": (1, 8, 8)}


class Payload:
    """Unpickled, it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.mark}",)


class HostileModel(nn.Linear):
    """A module with a payload in it, pickled whole."""

    def __init__(self, mark: Path) -> None:
        super().__init__(2, 2)
        self.payload = Payload(mark)


def weights() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return dict(ARCHITECTURES["allconv"](class_count=3, channel_count=1, width=2).state_dict())


def hostile_pickle(mark: Path, protocol: int = 2) -> bytes:
    return pickle.dumps({"state_dict": weights_as_lists(), "extra": Payload(mark)}, protocol=protocol)


def weights_as_lists() -> dict[str, Any]:
    return {name: tensor.tolist() for name, tensor in weights().items()}


def archive(members: list[tuple[str, bytes]], compression: int = zipfile.ZIP_STORED) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", compression) as file:
        for name, data in members:
            file.writestr(name, data)
    return content.getvalue()


def members_of(state_dict: Any) -> list[tuple[str, bytes]]:
    content = io.BytesIO()
    torch.save(state_dict, content)
    with zipfile.ZipFile(content) as file:
        return [(member.filename, file.read(member)) for member in file.infolist()]


def with_pickle(mark: Path, name: str = "data.pkl", **changes: Any) -> bytes:
    """A state dict as torch saves it, with a hostile pickle in place of its own, or beside it."""
    members = members_of(weights())
    kept = [(key, data) for key, data in members if changes.get("beside") or not key.endswith("data.pkl")]
    pickled = with_pickle(mark) if changes.get("nested") else hostile_pickle(mark)
    return archive([*kept, (f"archive/{name}", pickled)], changes.get("compression", zipfile.ZIP_STORED))


def torch_saved(content: Any, **options: Any) -> bytes:
    saved = io.BytesIO()
    torch.save(content, saved, **options)
    return saved.getvalue()


def tar(mark: Path) -> bytes:
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as file:
        for name in ("storages", "tensors", "pickle"):
            data = hostile_pickle(mark)
            information = tarfile.TarInfo(name)
            information.size = len(data)
            file.addfile(information, io.BytesIO(data))
    return content.getvalue()


def exported(mark: Path) -> bytes:
    """A torch.export archive whose weights say that they are a pickle, and are."""
    listing = {
        "config": {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": True, "tensor_meta": None}}
    }
    inner = torch_saved(Payload(mark))
    return archive(
        [
            ("a/archive_format", b"pt2"),
            ("a/archive_version", b"0"),
            ("a/models/model.json", b"{}"),
            ("a/data/weights/model_weights_config.json", json.dumps(listing).encode()),
            ("a/data/weights/weight_0", inner),
            ("a/data/sample_inputs/model.pt", inner),
        ]
    )


def object_array(mark: Path) -> np.ndarray:
    array = np.empty(1, dtype=object)
    array[0] = Payload(mark)
    return array


def numpy_saved(save: Callable[..., Any], mark: Path) -> bytes:
    content = io.BytesIO()
    save(content, object_array(mark))
    return content.getvalue()


def ordered(mark: Path) -> "OrderedDict[str, Any]":
    state: OrderedDict[str, Any] = OrderedDict(weights())
    state["payload"] = Payload(mark)
    return state


HOSTILE: dict[str, Callable[[Path], bytes]] = {
    "plain.pkl": hostile_pickle,
    "plain.pt": hostile_pickle,
    "plain.safetensors": lambda mark: hostile_pickle(mark, 4),
    "plain.onnx": lambda mark: hostile_pickle(mark, 5),
    "plain-without-suffix": hostile_pickle,
    "text.pth": lambda mark: hostile_pickle(mark, 0),
    "gzip.joblib": lambda mark: gzip.compress(hostile_pickle(mark)),
    "zlib.joblib": lambda mark: zlib.compress(hostile_pickle(mark)),
    "gzip.pt": lambda mark: gzip.compress(with_pickle(mark)),
    "object.npy": lambda mark: numpy_saved(np.save, mark),
    "object.npz": lambda mark: numpy_saved(np.savez, mark),
    "array-without-suffix": lambda mark: numpy_saved(np.save, mark),
    "legacy-tar.pt": tar,
    "tar-without-suffix": tar,
    "legacy.pt": lambda mark: torch_saved(ordered(mark), _use_new_zipfile_serialization=False),
    "whole-module.pt": lambda mark: torch_saved(HostileModel(mark)),
    "state-dict.pt": lambda mark: torch_saved(ordered(mark)),
    "state-dict.bin": lambda mark: torch_saved({"state_dict": weights(), "hyper_parameters": Payload(mark)}),
    "named-safetensors.safetensors": lambda mark: torch_saved(ordered(mark)),
    "newer-pickle.pt": lambda mark: torch_saved(ordered(mark), pickle_protocol=4),
    "replaced.pt": with_pickle,
    "duplicate.pt": lambda mark: duplicated(mark),
    "upper-case.pt": lambda mark: with_pickle(mark, "DATA.PKL", beside=True),
    "upper-case-only.pt": lambda mark: with_pickle(mark, "DATA.PKL"),
    "another-pickle.pt": lambda mark: with_pickle(mark, "extra.pkl", beside=True),
    "compressed.pt": lambda mark: with_pickle(mark, compression=zipfile.ZIP_DEFLATED),
    "nested.pt": lambda mark: archive([("archive/inner.zip", with_pickle(mark))]),
    "nested-as-data.pt": lambda mark: archive([("archive/data.pkl", with_pickle(mark))]),
    "nested-as-pickle.pt": lambda mark: with_pickle(mark, nested=True),
    "climbing.pt": lambda mark: archive([*members_of(weights()), ("../../data.pkl", hostile_pickle(mark))]),
    "exported.pt2": exported,
    "exported.pt": exported,
}


@pytest.fixture
def mark(tmp_path: Path) -> Path:
    return tmp_path / "it-ran"


def duplicated(mark: Path) -> bytes:
    """Two members of one name: scanners may read the first, and torch the second."""
    (root,) = {name.partition("/")[0] for name, _ in members_of(weights())}
    with pytest.warns(UserWarning, match="Duplicate name"):
        return archive([*members_of(weights()), (f"{root}/data.pkl", hostile_pickle(mark))])


def test_the_payload_would_run_if_it_were_unpickled(mark):
    pickle.loads(hostile_pickle(mark))
    assert mark.exists()


@pytest.mark.parametrize("name", HOSTILE)
def test_a_file_that_runs_code_is_refused_and_nothing_runs(tmp_path, mark, name):
    path = tmp_path / name
    path.write_bytes(HOSTILE[name](mark))
    with pytest.raises(UnsafeInput) as refused:
        open_target(TargetFile(str(path), **OPTIONS))
    assert not mark.exists()
    assert str(path) in str(refused.value)
    assert "\n" not in str(refused.value)
    assert "safetensors" in str(refused.value) or "--trust-model" in str(refused.value)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("plain.onnx", "is a pickle"),
        ("gzip.joblib", "is a compressed file"),
        ("array-without-suffix", "is a NumPy file"),
        ("tar-without-suffix", "is a tar archive"),
        ("text.pth", "may be an older pickle"),
        ("whole-module.pt", ".HostileModel"),
        ("state-dict.pt", "asks for posix.system"),
        ("duplicate.pt", "a name stands twice"),
        ("upper-case.pt", "DATA.PKL, which torch.save does not write"),
        ("compressed.pt", "is a compressed archive"),
        ("nested-as-data.pt", "not of one state dict"),
        ("nested-as-pickle.pt", "holds other things than tensors"),
        ("exported.pt", "is a torch.export program"),
    ],
)
def test_the_line_says_what_the_file_is(tmp_path, mark, name, words):
    (tmp_path / name).write_bytes(HOSTILE[name](mark))
    with pytest.raises(UnsafeInput) as refused:
        open_target(TargetFile(str(tmp_path / name), **OPTIONS))
    assert words in str(refused.value)


@pytest.mark.parametrize("name", [name for name in HOSTILE if not name.startswith("exported")])
def test_trust_does_not_extend_to_pickles(tmp_path, mark, name):
    (tmp_path / name).write_bytes(HOSTILE[name](mark))
    with pytest.raises(UnsafeInput):
        open_target(TargetFile(str(tmp_path / name), trust_model=True, **OPTIONS))
    assert not mark.exists()


FOLDERS: dict[str, dict[str, Callable[[Path], bytes]]] = {
    "pickled weights": {"pytorch_model.bin": lambda mark: torch_saved(ordered(mark))},
    "an index of pickles": {
        "model.safetensors.index.json": lambda _: b'{"weight_map": {"head.weight": "part.bin"}}',
        "part.bin": lambda mark: torch_saved(ordered(mark)),
    },
    "an index that climbs": {
        "model.safetensors.index.json": lambda _: b'{"weight_map": {"head.weight": "../part.safetensors"}}',
    },
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_pickles_is_refused_and_nothing_runs(tmp_path, mark, name):
    pytest.importorskip("transformers")
    (tmp_path / "config.json").write_text('{"model_type": "resnet"}')
    for file, content in FOLDERS[name].items():
        (tmp_path / file).write_bytes(content(mark))
    with pytest.raises(UnsafeInput, match="nothing was opened; save it again with"):
        open_target(TargetFile(str(tmp_path), **OPTIONS))
    assert not mark.exists()


def test_code_in_a_folder_does_not_run(tmp_path, mark):
    pytest.importorskip("transformers")
    configuration = {
        "model_type": "mine",
        "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"},
    }
    (tmp_path / "config.json").write_text(json.dumps(configuration))
    (tmp_path / "code.py").write_text(f"import os\nos.system('touch {mark}')\n")
    save_file(weights(), tmp_path / "model.safetensors")
    with pytest.raises(UnsafeInput, match="code of its own"):
        open_target(TargetFile(str(tmp_path), trust_model=True))
    assert not mark.exists()


OPEN_ALL = """
import sys
from pathlib import Path
from patchmi.target import TargetFile, open_target
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        open_target(TargetFile(str(path), architecture="patchmi:allconv", image_shape=(1, 8, 8)))
        print(path.name, "opened")
    except ValueError as error:
        print(path.name, type(error).__name__)
"""


def test_no_environment_makes_a_file_run(tmp_path, mark):
    """The variable turns torch.load's default round, and must not turn ours."""
    folder = tmp_path / "hostile"
    folder.mkdir()
    for name, content in HOSTILE.items():
        (folder / name).write_bytes(content(mark))
    torch.save(weights(), folder / "harmless.pt")
    environment = os.environ | {"TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1"}
    done = subprocess.run(
        [sys.executable, "-c", OPEN_ALL, folder], env=environment, capture_output=True, text=True, check=True
    )
    expected = {name: "UnsafeInput" for name in HOSTILE} | {"harmless.pt": "opened"}
    assert dict(line.split() for line in done.stdout.splitlines()) == expected
    assert not mark.exists()


def test_a_state_dict_whose_methods_were_replaced_by_data_is_refused(tmp_path):
    """What torch allows to be set on an ordered dictionary can hide its own `items`."""

    class Sneaky:
        def __reduce__(self) -> tuple[Any, ...]:
            return OrderedDict, (), dict.fromkeys(["keys", "items", "get"], 5), None, iter(weights().items())

    torch.save(Sneaky(), tmp_path / "a.pt")
    with pytest.raises(TargetInvalid, match="cannot be read as state dict"):
        open_target(TargetFile(str(tmp_path / "a.pt"), **OPTIONS))


# Damage


def mutated(content: bytes, chance: random.Random) -> bytes:
    """A few bytes changed, cut, doubled or moved, mostly in the first 600."""
    damaged = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        end = chance.choice([8, 64, 600, len(damaged)])
        place = chance.randrange(min(end, len(damaged)))
        kind = chance.randrange(6)
        if kind == 0:
            damaged[place] = chance.randrange(256)
        elif kind == 1:
            damaged[place] ^= 1 << chance.randrange(8)
        elif kind == 2:
            damaged[place:place] = chance.randbytes(chance.randint(1, 9))
        elif kind == 3:
            del damaged[place : place + chance.randint(1, 9)]
        elif kind == 4:
            damaged[place : place + 1] = chance.choice(
                [b"0", b"9", b"-", b'"', b"{", b"}", b"[", b",", b"\\", b"e99"]
            )
        else:
            damaged[place : place + 20] = damaged[place // 2 : place // 2 + 20]
        if not damaged:
            break
    return bytes(damaged[: chance.randrange(len(damaged) + 1)] if chance.random() < 0.1 else damaged)


@pytest.mark.parametrize(("suffix", "count"), [("safetensors", 2000), ("pt", 500)])
def test_damaged_files_end_in_an_error_of_ours_or_open(tmp_path, monkeypatch, suffix, count):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small_network.py").write_text(
        "from torch import nn\n"
        "def make(): return nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3))\n"
    )
    options = {"architecture": "small_network:make", "image_shape": (1, 8, 8)}
    whole = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.Linear(8, 3)).state_dict()
    path = tmp_path / f"a.{suffix}"
    save_file(dict(whole), path) if suffix == "safetensors" else torch.save(whole, path)
    content = path.read_bytes()
    chance = random.Random(0)
    outcomes = {"opened": 0, "refused": 0}
    for _ in range(count):
        path.write_bytes(mutated(content, chance))
        try:
            target = open_target(TargetFile(str(path), **options)).target
        except (TargetInvalid, UnsafeInput):
            outcomes["refused"] += 1
        else:
            assert answers(target, torch.rand(1, 1, 8, 8)).shape == (1, target.class_count)
            outcomes["opened"] += 1
    assert outcomes["refused"] > count / 5
    assert outcomes["opened"] > 0


# Our own code


def test_programs_are_loaded_in_one_place_and_nothing_is_unpickled():
    """Programs of models that are trusted have one door, state dicts another, and nothing else is there."""
    calls: dict[str, list[str]] = {}
    for source in sorted((SOURCES / "target").glob("*.py")):
        for node in ast.walk(ast.parse(source.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import | ast.ImportFrom):
                origin = node.module if isinstance(node, ast.ImportFrom) else None
                modules = {str(origin).split(".")[0], *(alias.name.split(".")[0] for alias in node.names)}
                assert not modules & {"pickle", "joblib", "dill", "cloudpickle", "marshal", "shelve"}, source
            if isinstance(node, ast.Call):
                name = ast.unparse(node.func)
                assert name not in ("eval", "exec"), source
                if name in ("torch.load", "torch.jit.load", "torch.export.load"):
                    calls.setdefault(name, []).append(source.name)
                if name == "torch.load":
                    assert "weights_only=True" in ast.unparse(node)
    assert calls == {
        "torch.load": ["state_dict.py"],
        "torch.jit.load": ["trusted.py"],
        "torch.export.load": ["trusted.py"],
    }
