"""Folders as transformers lays them out, here and on a hub that runs on this machine."""

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from patchmi.errors import UnsafeInput
from patchmi.target import TargetFile, TargetInvalid, answers, open_target, probe_target
from patchmi.target.torchvision_import import make_torchvision_importable

make_torchvision_importable()
transformers = pytest.importorskip("transformers")

NAMES = {0: "cat", 1: "dog", 2: "cow"}
PROCESSOR: dict[str, Any] = {
    "image_processor_type": "ViTImageProcessor",
    "do_normalize": True,
    "do_rescale": True,
    "do_resize": True,
    "image_mean": [0.5, 0.25, 0.125],
    "image_std": [0.5, 0.5, 0.25],
    "rescale_factor": 1 / 255,
    "size": {"height": 32, "width": 32},
}


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No way out of this machine, and no attempt at one."""
    attempts: list[Any] = []

    connect, resolve = socket.socket.connect, socket.getaddrinfo

    def refuse(*where: Any) -> None:
        if "127.0.0.1" not in str(where):
            attempts.append(where)
            raise OSError("the network is not to be touched")

    def guarded_connect(one: socket.socket, address: Any) -> None:
        refuse(address)
        connect(one, address)

    def guarded_resolve(host: Any, *more: Any, **options: Any) -> Any:
        refuse(host)
        return resolve(host, *more, **options)

    monkeypatch.setattr(socket.socket, "connect", guarded_connect)
    monkeypatch.setattr(socket, "getaddrinfo", guarded_resolve)
    yield
    assert attempts == []


def save_classifier(
    folder: Path, *, channel_count: int = 3, processor: dict[str, Any] | None = PROCESSOR
) -> Any:
    torch.manual_seed(0)
    config = transformers.ResNetConfig(
        num_channels=channel_count,
        embedding_size=8,
        hidden_sizes=[8, 16],
        depths=[1, 1],
        layer_type="basic",
        id2label=NAMES,
        label2id={name: label for label, name in NAMES.items()},
    )
    model = transformers.ResNetForImageClassification(config)
    with torch.no_grad():
        model.train()(torch.rand(16, channel_count, 32, 32))
    model.eval().save_pretrained(folder)
    if processor is not None:
        (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return model


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_classifier(tmp_path / "classifier")
    return tmp_path / "classifier"


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def refusal(kind: type[Exception], folder: Path) -> str:
    with pytest.raises(kind) as refused:
        open_target(TargetFile(str(folder)))
    assert "\n" not in str(refused.value)
    assert str(folder) in str(refused.value)
    return str(refused.value)


def test_names_size_mean_and_std_are_the_folder_s(tmp_path):
    model = save_classifier(tmp_path / "classifier")
    opened = open_target(TargetFile(str(tmp_path / "classifier")))
    target = opened.target
    assert target.class_names == ("cat", "dog", "cow")
    assert target.image_shape == (3, 32, 32)
    assert target.mean == pytest.approx((0.5, 0.25, 0.125))
    assert target.std == pytest.approx((0.5, 0.5, 0.25))
    assert (target.name, target.architecture) == ("classifier", "ResNetForImageClassification")
    images = torch.rand(4, 3, 32, 32)
    shown = (images - torch.tensor([0.5, 0.25, 0.125]).reshape(3, 1, 1)) / torch.tensor(
        [0.5, 0.5, 0.25]
    ).reshape(3, 1, 1)
    assert torch.allclose(answers(target, images), model(shown).logits.detach(), atol=1e-5)
    _, findings = probe_target(target)
    assert "The model answers ImageClassifierOutputWithNoAttention: the scores in it are used." in findings


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"do_normalize": False},
        {"do_rescale": False},
        {"do_rescale": False, "do_normalize": False},
        {"rescale_factor": 1 / 127.5},
        {"image_mean": None, "image_std": None, "do_normalize": False},
    ],
)
def test_images_reach_the_model_as_its_own_processor_would_hand_them_on(tmp_path, changes):
    """The processor itself is the oracle, on pictures of 8 bits that need no resizing."""
    save_classifier(tmp_path / "classifier", processor=PROCESSOR | changes)
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "classifier")
    target = open_target(TargetFile(str(tmp_path / "classifier"))).target
    pictures = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    handed = processor(list(pictures.numpy()), return_tensors="pt", do_resize=False)["pixel_values"].float()
    images = pictures.permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(numbers).reshape(3, 1, 1) for numbers in (target.mean, target.std))
    assert torch.allclose((images - mean) / std, handed, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("changes", "side"),
    [
        ({"size": {"height": 24, "width": 40}}, (24, 40)),
        ({"size": {"shortest_edge": 36}}, (36, 36)),
        (
            {
                "size": {"height": 40, "width": 40},
                "do_center_crop": True,
                "crop_size": {"height": 32, "width": 24},
            },
            (32, 24),
        ),
    ],
)
def test_the_size_is_what_the_processor_leaves(tmp_path, changes, side):
    save_classifier(tmp_path / "classifier", processor=PROCESSOR | changes)
    opened = open_target(TargetFile(str(tmp_path / "classifier")), image_shape=(3, 28, 28))
    assert opened.target.image_shape == (3, *side)


def test_without_a_processor_the_size_must_be_said(tmp_path):
    save_classifier(tmp_path / "classifier", channel_count=1, processor=None)
    assert "give --image-shape" in refusal(TargetInvalid, tmp_path / "classifier")
    opened = open_target(TargetFile(str(tmp_path / "classifier"), image_shape=(1, 32, 32)))
    assert opened.target.mean == ()
    assert (
        "No preprocessor was found: images are not normalised unless mean and std are given."
        in opened.findings
    )


def test_without_a_processor_the_size_may_be_in_the_configuration(tmp_path):
    config = transformers.ViTConfig(
        image_size=16,
        patch_size=8,
        num_channels=1,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        num_labels=4,
    )
    transformers.ViTForImageClassification(config).save_pretrained(tmp_path / "vit")
    opened = open_target(TargetFile(str(tmp_path / "vit")))
    assert opened.target.image_shape == (1, 16, 16)
    assert opened.target.class_count == 4


def test_the_user_goes_before_the_folder(folder):
    opened = open_target(
        TargetFile(
            str(folder), class_names=("a", "b", "c"), image_shape=(3, 48, 48), mean=(0.0,) * 3, std=(1.0,) * 3
        )
    )
    target = opened.target
    assert (target.class_names, target.image_shape) == (("a", "b", "c"), (3, 48, 48))
    assert (target.mean, target.std) == ((0.0,) * 3, (1.0,) * 3)
    assert "Mean and standard deviation are those given, not those of the model's files." in opened.findings


def test_weights_in_parts_are_read_by_their_index_and_hashed_together(tmp_path):
    model = save_classifier(tmp_path / "whole")
    model.save_pretrained(tmp_path / "parts", max_shard_size="4KB")
    (tmp_path / "parts" / "preprocessor_config.json").write_text(json.dumps(PROCESSOR))
    parts = sorted((tmp_path / "parts").glob("*.safetensors"))
    assert len(parts) > 1
    whole, in_parts = (open_target(TargetFile(str(tmp_path / name))) for name in ("whole", "parts"))
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(answers(whole.target, images), answers(in_parts.target, images))
    parts[-1].write_bytes(parts[-1].read_bytes()[:-1] + b"\x01")
    assert open_target(TargetFile(str(tmp_path / "parts"))).sha256 != in_parts.sha256


# What is refused


@pytest.mark.parametrize(
    ("changes", "kind", "words"),
    [
        ({"auto_map": {"AutoConfig": "code.Config"}}, UnsafeInput, "code of its own"),
        ({"transformers_weights": "pytorch_model.bin"}, UnsafeInput, "may be a pickle"),
        ({"model_type": "bert"}, TargetInvalid, "bert is no image classifier"),
        ({"model_type": None}, TargetInvalid, "None is no image classifier"),
        ({"model_type": "timm_wrapper"}, TargetInvalid, "a model of timm"),
        ({"architecture": "hf-hub:owner/name"}, TargetInvalid, "a model of timm"),
        ({"quantization_config": {"quant_method": "torchao"}}, TargetInvalid, "a quantised model"),
        ({"hidden_sizes": [8, 24]}, TargetInvalid, "transformers cannot open it"),
        ({"depths": [1, 2]}, TargetInvalid, "the weights lack resnet.encoder.stages.1"),
        ({"depths": "deep"}, TargetInvalid, "transformers cannot open it"),
        (
            {"id2label": {"0": "cat", "1": "dog", "7": "cow"}},
            TargetInvalid,
            "has no label 2; number them from 0",
        ),
    ],
)
def test_a_configuration_that_leads_elsewhere_or_nowhere_is_refused(folder, changes, kind, words):
    edit(folder / "config.json", **changes)
    assert words in refusal(kind, folder)


def test_code_on_the_hub_that_a_configuration_names_is_not_asked_for(folder):
    edit(folder / "config.json", attn_implementation="owner/kernel", _attn_implementation="owner/kernel")
    assert open_target(TargetFile(str(folder))).target.class_count == 3


def test_an_adapter_is_refused(folder):
    (folder / "adapter_config.json").write_text('{"base_model_name_or_path": "owner/name"}')
    assert "merge it" in refusal(TargetInvalid, folder)


@pytest.mark.parametrize("content", ["", "[]", "{", "[" * 100_000, '{"model_type": ["resnet"]}'])
def test_a_damaged_configuration_is_refused(folder, content):
    (folder / "config.json").write_text(content)
    refusal(TargetInvalid, folder)


@pytest.mark.parametrize(
    "changes",
    [
        {"image_mean": ["a", "b", "c"]},
        {"rescale_factor": 0},
        {"image_std": [0.5]},
        {"image_std": [0.0, 1.0, 1.0]},
    ],
)
def test_a_processor_that_cannot_be_used_is_refused(folder, changes):
    edit(folder / "preprocessor_config.json", **changes)
    refusal(TargetInvalid, folder)


def test_a_model_that_takes_blue_first_is_refused(folder):
    edit(
        folder / "preprocessor_config.json",
        image_processor_type="MobileViTImageProcessor",
        do_flip_channel_order=True,
    )
    assert "blue before red" in refusal(TargetInvalid, folder)


def test_a_truncated_file_of_weights_is_refused(folder):
    content = (folder / "model.safetensors").read_bytes()
    (folder / "model.safetensors").write_bytes(content[:-50])
    assert "transformers cannot open it" in refusal(TargetInvalid, folder)


def test_transformers_is_named_where_it_cannot_be_imported(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    assert "pip install 'patchmi[hub]'" in refusal(TargetInvalid, folder)


# The hub

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def hub(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub with one repository: the paths that it is asked for."""
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04}.")
    files = {path.name: path.read_bytes() for path in folder.iterdir()}
    asked: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, *, body: bool) -> None:
            asked.append(self.path)
            content, name = b"", self.path.partition("?")[0].rpartition("/")[2]
            if self.path.startswith("/api/models/owner/name/revision"):
                siblings = [{"rfilename": file} for file in files]
                content = json.dumps({"id": "owner/name", "sha": COMMIT, "siblings": siblings}).encode()
            elif self.path.startswith("/api/models/owner/name/tree"):
                listing = [
                    {"type": "file", "path": file, "size": len(files[file]), "oid": file} for file in files
                ]
                content = json.dumps(listing).encode()
            elif self.path.startswith("/owner/name/resolve/") and name in files:
                content = files[name]
            self.send_response(200 if content else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("ETag", f'"{name}"')
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, format: str, *arguments: Any) -> None:
            """Keep quiet."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    monkeypatch.setattr(
        "huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE",
        address + "/{repo_id}/resolve/{revision}/{filename}",
    )
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_repository_of_the_hub_is_fetched_without_its_pickles(hub):
    opened = open_target(TargetFile("hub:owner/name"))
    assert opened.target.class_names == ("cat", "dog", "cow")
    assert opened.findings[-1] == f"The hub's revision is {COMMIT}."
    assert any(path.endswith("/model.safetensors") for path in hub)
    assert not [path for path in hub if path.endswith(".bin")]
    with pytest.raises(TargetInvalid, match="hub:owner/other: cannot be fetched"):
        open_target(TargetFile("hub:owner/other"))


def test_a_revision_of_the_hub_can_be_pinned(hub):
    open_target(TargetFile("hub:owner/name@v1.0"))
    assert any("/revision/v1.0" in path for path in hub)
