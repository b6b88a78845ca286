"""State dicts, networks of functions, and what is asked of the user."""

import hashlib
import resource
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from patchmi.errors import UnsafeInput
from patchmi.networks import ARCHITECTURES
from patchmi.target import Opened, TargetFile, TargetInvalid, answers, open_target
from patchmi.target.torchvision_import import make_torchvision_importable

SIDE = 16


def pictures(count: int = 5, *, channel_count: int = 1, side: int = SIDE) -> torch.Tensor:
    return torch.rand(count, channel_count, side, side, generator=torch.Generator().manual_seed(0))


def make_network(name: str = "resnet10", *, channel_count: int = 1, width: int = 8) -> nn.Module:
    """A network whose weights and statistics are not the ones that it starts with."""
    torch.manual_seed(1)
    network = ARCHITECTURES[name](class_count=4, channel_count=channel_count, width=width)
    with torch.no_grad():
        network.train()(pictures(16, channel_count=channel_count, side=32))
    return network.eval()


def weights_of(network: nn.Module) -> dict[str, torch.Tensor]:
    return dict(network.state_dict())


def open_own(path: Path, **said: Any) -> Opened:
    """Open a ResNet-10 of patchmi's."""
    options: dict[str, Any] = {"architecture": "patchmi:resnet10", "image_shape": (1, SIDE, SIDE)} | said
    return open_target(TargetFile(str(path), **options))


def refusal(kind: type[Exception], source: Path | str, **options: Any) -> str:
    with pytest.raises(kind) as refused:
        open_target(TargetFile(str(source), **options))
    assert "\n" not in str(refused.value)
    return str(refused.value)


def same_answers(opened: Opened, network: nn.Module) -> bool:
    images = pictures(channel_count=opened.target.image_shape[0], side=opened.target.image_shape[1])
    return torch.allclose(answers(opened.target, images), network(images).detach(), atol=1e-5)


# Own architectures


@pytest.mark.parametrize("name", ARCHITECTURES)
@pytest.mark.parametrize("channel_count", [1, 3])
def test_an_own_architecture_takes_its_sizes_from_its_weights(tmp_path, name, channel_count):
    network = make_network(name, channel_count=channel_count, width=24)
    save_file(weights_of(network), tmp_path / "a.safetensors")
    shape = (channel_count, 32, 32)
    opened = open_target(
        TargetFile(str(tmp_path / "a.safetensors"), architecture=f"patchmi:{name}", image_shape=shape)
    )
    assert same_answers(opened, network)
    assert opened.target.class_names == ("0", "1", "2", "3")
    assert opened.target.architecture == f"patchmi:{name}"
    assert opened.target.access == "white-box"
    assert not opened.target.model.training


def test_the_digest_is_the_weights_file_s(tmp_path):
    save_file(weights_of(make_network()), tmp_path / "a.safetensors")
    expected = hashlib.sha256((tmp_path / "a.safetensors").read_bytes()).hexdigest()
    assert open_own(tmp_path / "a.safetensors").sha256 == expected


def test_a_header_that_lies_about_a_width_costs_no_memory(tmp_path):
    width = 1000
    save_file(
        {"trunk.0.weight": torch.zeros(width, 1, 3, 3), "head.weight": torch.zeros(2, 8)},
        tmp_path / "a.safetensors",
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(TargetInvalid, match=r"missing: trunk\.1\.weight"):
        open_own(tmp_path / "a.safetensors")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kilobytes, of 2.5 million


# Checkpoints as others write them

OTHER_SCRIPT = """
import sys, torch
from safetensors.torch import save_file
from other_network import make
folder = sys.argv[1]
torch.manual_seed(3)
network = torch.nn.DataParallel(make(num_classes=6))
optimiser = torch.optim.Adam(network.parameters())
network.train()
for _ in range(3):
    optimiser.zero_grad()
    network(torch.rand(8, 3, 16, 16)).square().sum().backward()
    optimiser.step()
torch.save(
    {"epoch": 3, "state_dict": network.state_dict(), "optimizer": optimiser.state_dict(), "best": 0.5},
    f"{folder}/checkpoint.pth",
)
images = torch.rand(4, 3, 16, 16)
save_file({"images": images, "logits": network.eval()(images).detach()}, f"{folder}/answers.safetensors")
"""
OTHER_NETWORK = """
from torch import nn
def make(num_classes=10):
    first = [nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(392, num_classes))
"""


def test_a_checkpoint_that_another_script_wrote_answers_as_it_did_there(tmp_path, monkeypatch):
    (tmp_path / "other_network.py").write_text(OTHER_NETWORK)
    (tmp_path / "train.py").write_text(OTHER_SCRIPT)
    subprocess.run([sys.executable, tmp_path / "train.py", tmp_path], check=True, cwd=tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "other_network", raising=False)
    opened = open_target(
        TargetFile(
            "checkpoint.pth",
            architecture="other_network:make",
            class_names=tuple("abcdef"),
            image_shape=(3, 16, 16),
        )
    )
    there = load_file(tmp_path / "answers.safetensors")
    assert torch.allclose(answers(opened.target, there["images"]), there["logits"], atol=1e-5)
    assert opened.target.class_names == tuple("abcdef")
    assert opened.findings == (
        "The weights were taken from state_dict in the checkpoint.",
        "The prefix module. was taken off every name of the weights.",
    )


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.", "module._orig_mod.", "net.model."])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_wrapper_s_prefix_is_taken_off_and_reported(tmp_path, prefix, suffix):
    network = make_network()
    path = tmp_path / f"a.{suffix}"
    prefixed = {prefix + name: tensor for name, tensor in weights_of(network).items()}
    save_file(prefixed, path) if suffix == "safetensors" else torch.save(prefixed, path)
    opened = open_own(path)
    assert same_answers(opened, network)
    reported = [finding.split()[2] for finding in opened.findings if finding.startswith("The prefix")]
    assert "".join(reported) == prefix


@pytest.mark.parametrize(
    "order",
    [
        ["state_dict_ema", "state_dict"],
        ["state_dict_ema", "model_ema"],
        ["model_ema", "model"],
        ["state_dict", "model"],
        ["model_state_dict"],
        ["model"],
    ],
)
def test_of_several_state_dicts_in_a_checkpoint_the_averaged_one_is_taken(tmp_path, order):
    wanted = make_network()
    other = {name: tensor * 2 for name, tensor in weights_of(wanted).items()}
    checkpoint: dict[str, Any] = {key: other for key in reversed(order)} | {order[0]: weights_of(wanted)}
    torch.save(checkpoint | {"epoch": 7, "optimizer": {"lr": 0.1}}, tmp_path / "a.pt")
    opened = open_own(tmp_path / "a.pt")
    assert same_answers(opened, wanted)
    assert opened.findings[0].startswith(f"The weights were taken from {order[0]} in the checkpoint")
    assert all(f"not from {key}" in opened.findings[0] for key in order[1:])


def test_weights_that_torch_averaged_lose_their_counter(tmp_path):
    network = make_network()
    averaged = torch.optim.swa_utils.AveragedModel(network, use_buffers=True)
    torch.save(averaged.state_dict(), tmp_path / "a.pt")
    opened = open_own(tmp_path / "a.pt")
    assert same_answers(opened, network)
    assert any("average over training steps" in finding for finding in opened.findings)


def test_weights_of_half_precision_are_reported(tmp_path):
    network = make_network().half()
    torch.save(network.state_dict(), tmp_path / "a.pt")
    opened = open_own(tmp_path / "a.pt")
    assert "The weights are stored as float16 and used as float32." in opened.findings
    assert {tensor.dtype for tensor in opened.target.model.parameters()} == {torch.float32}


def test_counters_of_batches_need_not_be_there(tmp_path):
    network = make_network()
    weights = {name: t for name, t in weights_of(network).items() if "num_batches" not in name}
    torch.save(weights, tmp_path / "a.pt")
    assert same_answers(open_own(tmp_path / "a.pt"), network)


def test_a_name_that_the_network_has_itself_is_no_prefix(tmp_path, monkeypatch):
    (tmp_path / "wrapped_network.py").write_text(
        "from torch import nn\n"
        "class Wrapped(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.model = nn.Linear(256, 3)\n"
        "    def forward(self, images):\n"
        "        return self.model(images.flatten(1))\n"
    )
    torch.save({"model.weight": torch.ones(3, 256), "model.bias": torch.zeros(3)}, tmp_path / "a.pt")
    monkeypatch.chdir(tmp_path)
    opened = open_own(tmp_path / "a.pt", architecture="wrapped_network:Wrapped")
    assert opened.findings == ("The classes have no names: they are numbered.",)
    assert opened.target.class_count == 3


# Weights that do not fit


def changed(change: str) -> dict[str, torch.Tensor]:
    weights = weights_of(make_network())
    if change == "missing":
        del weights["head.bias"]
    elif change == "unexpected":
        weights |= {f"teacher.{number}": torch.zeros(1) for number in range(5)}
    elif change == "shape":
        weights["trunk.3.main.0.weight"] = torch.zeros(8, 8, 5, 5)
    elif change == "whole numbers":
        weights["head.bias"] = torch.zeros(4, dtype=torch.int8)
    elif change == "NaN":
        weights["trunk.1.running_var"] = torch.full((8,), torch.nan)
    elif change == "infinity":
        weights["head.weight"] = torch.full((4, 64), torch.inf)
    return weights


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "do not fit: missing: head.bias;"),
        ("unexpected", "unexpected: teacher.0, teacher.1, teacher.2 … (5 in all);"),
        ("shape", "trunk.3.main.0.weight 8×8×5×5 instead of 8×8×3×3"),
        ("whole numbers", "another kind of number: head.bias torch.int8"),
        ("NaN", "NaN or infinity in trunk.1.running_var;"),
        ("infinity", "NaN or infinity in head.weight;"),
    ],
)
def test_weights_that_do_not_fit_are_named_in_one_line(tmp_path, suffix, change, words):
    path = tmp_path / f"a.{suffix}"
    save_file(changed(change), path) if suffix == "safetensors" else torch.save(changed(change), path)
    said = refusal(TargetInvalid, path, architecture="patchmi:resnet10", image_shape=(1, SIDE, SIDE))
    assert words in said


def test_a_tensor_larger_than_its_file_is_refused_before_anything_is_counted(tmp_path):
    weights: dict[str, torch.Tensor] = {"head.weight": torch.zeros(1).expand(10**7, 10**6)}
    torch.save(weights, tmp_path / "a.pt")
    said = refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10")
    assert "head.weight claims 10000000×1000000 numbers" in said


@pytest.mark.parametrize(
    "odd",
    [torch.zeros(0, 3), torch.eye(3).to_sparse(), torch.zeros(3, device="meta")],
    ids=["empty", "sparse", "meta"],
)
def test_tensors_that_no_state_dict_of_a_classifier_has_are_refused(tmp_path, odd):
    torch.save({"head.weight": odd}, tmp_path / "a.pt")
    said = refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10")
    assert "head.weight is no plain tensor" in said


@pytest.mark.parametrize("content", [{}, {"state_dict": {"epoch": 3}}, [1, 2], torch.zeros(3)])
def test_a_file_without_named_tensors_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "a.pt")
    assert "holds no tensors" in refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10")


# Functions


@pytest.fixture
def module(tmp_path, monkeypatch) -> Any:
    """Writes a module into the working directory, under a name of its own, and a state dict beside it."""
    monkeypatch.chdir(tmp_path)
    torch.save({"0.weight": torch.ones(3, 256), "0.bias": torch.zeros(3)}, tmp_path / "a.pt")

    def write(name: str, code: str) -> str:
        (tmp_path / f"{name}.py").write_text(
            f"from torch import nn\ndef net(n): return nn.Sequential(nn.Linear(256, n))\n{code}\n"
        )
        return name

    yield write
    assert str(tmp_path) not in sys.path


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("asks_class_count", "def make(class_count): return net(class_count)"),
        ("asks_num_classes", "def make(width=1, *, num_classes): return net(num_classes)"),
        ("asks_nothing", "def make(): return net(3)"),
        ("has_defaults", "def make(depth=9): return net(3)"),
    ],
)
def test_a_function_is_told_the_class_count_if_it_asks(module, name, code):
    file = TargetFile("a.pt", architecture=f"{module(name, code)}:make", image_shape=(1, SIDE, SIDE))
    assert open_target(file, class_count=3).target.class_names == ("0", "1", "2")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("no_such_function", "", "has no function make"),
        ("no_function", "make = 3", "has no function make"),
        ("gives_no_module", "def make(): return 'net'", "gave str; it must give a torch.nn.Module"),
        ("fails", "def make(): raise KeyError('oh')", "the function failed (KeyError: 'oh')"),
        ("wants_count", "def make(num_classes): return net(num_classes)", "give --class-names"),
        ("wants_more", "def make(depth): return net(3)", "missing 1 required positional argument: 'depth'"),
        ("imports_badly", "import nothing_of_this_name", "cannot be imported (ModuleNotFoundError"),
    ],
)
def test_a_function_that_gives_no_network_is_named_in_one_line(module, name, code, words):
    architecture = f"{module(name, code)}:make"
    said = refusal(TargetInvalid, "a.pt", architecture=architecture, image_shape=(1, SIDE, SIDE))
    assert words in said
    assert architecture in said


@pytest.mark.parametrize(
    ("architecture", "words"),
    [
        ("resnet18", "give timm:NAME, patchmi:NAME or package.module:function"),
        ("patchmi:resnet11", "give one of resnet10, vgg6"),
        ("nothing_of_this_name:make", "run where Python finds it"),
        ("os:system; rm", "give timm:NAME"),
        ("patchmi:convmixer", "these are not its weights (0.weight, 0.bias)"),
    ],
)
def test_an_architecture_that_is_none_is_refused_in_one_line(module, architecture, words):
    assert words in refusal(TargetInvalid, "a.pt", architecture=architecture, image_shape=(1, SIDE, SIDE))


# What the user must say, and what goes first


def test_a_state_dict_alone_is_not_enough(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    assert "give --architecture" in refusal(TargetInvalid, tmp_path / "a.pt")


def test_the_image_shape_must_be_said_where_no_file_does(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    assert "give --image-shape" in refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10")


def test_the_image_shape_of_the_private_images_is_the_last_resort(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    file = TargetFile(str(tmp_path / "a.pt"), architecture="patchmi:resnet10")
    assert open_target(file, image_shape=(1, 20, 20)).target.image_shape == (1, 20, 20)
    said = replace(file, image_shape=(1, SIDE, SIDE))
    assert open_target(said, image_shape=(1, 20, 20)).target.image_shape == (1, SIDE, SIDE)


@pytest.mark.parametrize("shape", [(1, 10**6, 10**6), (1, 0, 16), (1, 16, -16)])
def test_an_image_shape_that_no_image_has_is_refused(tmp_path, shape):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    said = refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10", image_shape=shape)
    assert "of 1 to 4,096 pixels a side" in said


def test_an_image_shape_that_the_network_cannot_take_is_named(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    said = refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10", image_shape=(3, 8, 8))
    assert "fails on images of 3×8×8" in said


def test_mean_and_std_are_the_user_s(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    target = open_own(tmp_path / "a.pt", mean=(0.25,), std=(0.5,)).target
    assert (target.mean, target.std) == ((0.25,), (0.5,))
    with pytest.raises(TargetInvalid, match="one number for each of 1 channels"):
        open_own(tmp_path / "a.pt", mean=(0.1, 0.2, 0.3), std=(1.0, 1.0, 1.0))


def test_as_many_class_names_as_classes_are_wanted(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    file = TargetFile(str(tmp_path / "a.pt"), class_names=("cat", "dog"), architecture="patchmi:resnet10")
    with pytest.raises(TargetInvalid, match="2 class names for 3 classes"):
        open_target(file, class_count=3)


@pytest.mark.parametrize(
    ("source", "options", "words"),
    [
        ("nothing.pt", {}, "no such file; give a model file"),
        (".", {}, "no config.json there"),
        ("notes.txt", {}, "no model file that patchmi knows"),
        ("empty.onnx", {"weights": Path("a.pt")}, "--weights belongs to timm:NAME"),
        ("timm:resnet18", {}, "give its --weights"),
        ("hub:resnet18", {}, "give hub:OWNER/NAME"),
        ("hub:../etc", {}, "give hub:OWNER/NAME"),
    ],
)
def test_a_source_that_is_none_is_refused_in_one_line(tmp_path, monkeypatch, source, options, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("a classifier")
    (tmp_path / "empty.onnx").touch()
    assert words in refusal(TargetInvalid, source, **options)


@pytest.mark.parametrize(
    "damage", ["truncated", "header beyond the end", "huge header", "no header", "empty"]
)
def test_a_damaged_safetensors_file_is_refused_in_one_line(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    save_file(weights_of(make_network()), path)
    content = path.read_bytes()
    path.write_bytes(
        {
            "truncated": content[:-100],
            "header beyond the end": (99_000_000).to_bytes(8, "little") + content[8:],
            "huge header": (2**63).to_bytes(8, "little") + content[8:],
            "no header": (0).to_bytes(8, "little") + content[8:],
            "empty": b"",
        }[damage]
    )
    said = refusal(TargetInvalid, path, architecture="patchmi:resnet10", image_shape=(1, SIDE, SIDE))
    assert "cannot be read as safetensors" in said


def test_a_damaged_archive_is_refused_in_one_line(tmp_path):
    torch.save(weights_of(make_network()), tmp_path / "a.pt")
    content = (tmp_path / "a.pt").read_bytes()
    (tmp_path / "a.pt").write_bytes(content[: len(content) // 2])
    said = refusal(TargetInvalid, tmp_path / "a.pt", architecture="patchmi:resnet10")
    assert "a damaged archive" in said


# timm


@pytest.fixture
def timm() -> Any:
    make_torchvision_importable()
    return pytest.importorskip("timm", exc_type=ImportError)


def test_timm_s_name_brings_size_mean_and_std_and_its_weights_the_class_count(tmp_path, timm):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False, num_classes=7).eval()
    torch.save({"state_dict": network.state_dict(), "arch": "resnet18"}, tmp_path / "a.pth")
    opened = open_target(TargetFile("timm:resnet18.a1_in1k", weights=tmp_path / "a.pth"))
    target = opened.target
    assert target.image_shape == (3, 224, 224)
    assert target.class_count == 7
    assert target.mean == (0.485, 0.456, 0.406)
    assert opened.sha256 == hashlib.sha256((tmp_path / "a.pth").read_bytes()).hexdigest()
    images = pictures(2, channel_count=3, side=64)
    normalised = (images - torch.tensor(target.mean).reshape(3, 1, 1)) / torch.tensor(target.std).reshape(
        3, 1, 1
    )
    assert torch.allclose(answers(target, images), network(normalised).detach(), atol=1e-4)


def test_timm_as_an_architecture_takes_channels_and_classes_from_the_weights(tmp_path, timm):
    torch.manual_seed(0)
    network = timm.create_model("resnet18", pretrained=False, num_classes=7, in_chans=1).eval()
    prefixed = {f"module.{name}": tensor for name, tensor in network.state_dict().items()}
    save_file(prefixed, tmp_path / "a.safetensors")
    opened = open_target(
        TargetFile(str(tmp_path / "a.safetensors"), architecture="timm:resnet18", image_shape=(1, 32, 32))
    )
    assert same_answers(opened, network)
    assert opened.target.mean == ()
    as_source = open_target(TargetFile("timm:resnet18", weights=tmp_path / "a.safetensors"))
    assert as_source.target.image_shape == (1, 224, 224)
    assert as_source.target.mean == ()
    assert any("not used" in finding for finding in as_source.findings)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet81", "timm has no such model; is it resnet18"),
        ("resnet18.of_mine", "leave out what follows the dot"),
        ("hf-hub:timm/resnet18", "give timm:NAME"),
        ("local-dir:.", "give timm:NAME"),
        ("vit_tiny_patch16_224", "the weights have no head.weight"),
    ],
)
def test_a_model_that_timm_does_not_have_is_refused_and_nothing_is_fetched(tmp_path, timm, name, words):
    torch.save({"fc.weight": torch.zeros(7, 512)}, tmp_path / "a.pt")
    assert words in refusal(TargetInvalid, f"timm:{name}", weights=tmp_path / "a.pt")


def test_timm_is_named_where_it_cannot_be_imported(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    torch.save({"fc.weight": torch.zeros(7, 512)}, tmp_path / "a.pt")
    said = refusal(TargetInvalid, tmp_path / "a.pt", architecture="timm:resnet18", image_shape=(3, 32, 32))
    assert "pip install 'patchmi[hub]'" in said


IMPORTS = """
import importlib.util, sys
if importlib.util.find_spec("torchvision") is None:
    sys.exit("absent")
from patchmi.target.torchvision_import import make_torchvision_importable
make_torchvision_importable()
make_torchvision_importable()
import torchvision, timm
from transformers import AutoModelForImageClassification, ViTForImageClassification
print("imported")
"""


def test_timm_and_transformers_import_whatever_torchvision_is_installed():
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORTS], capture_output=True, text=True, check=False
    )
    if done.stderr.strip() == "absent":
        pytest.skip("torchvision is not installed")
    assert done.stdout.strip() == "imported", done.stderr


def test_weights_for_timm_are_judged_as_any_other_file(tmp_path):
    (tmp_path / "a.pkl").write_bytes(b"\x80\x04}.")
    assert "is a pickle" in refusal(UnsafeInput, "timm:resnet18", weights=tmp_path / "a.pkl")
