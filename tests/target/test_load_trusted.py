"""TorchScript and torch.export: programs, opened for those who trust them."""

import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi.errors import UnsafeInput
from patchmi.target import Target, TargetFile, TargetInvalid, WhiteBox, answers, open_target, probe_target

pytestmark = pytest.mark.filterwarnings(
    "ignore"
)  # torch warns of both formats, and of what it does with them


def make_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3)]
    return nn.Sequential(*layers).eval()


def pictures(count: int) -> torch.Tensor:
    return torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(0))


def script(path: Path) -> None:
    torch.jit.script(make_network()).save(path)


def trace(path: Path) -> None:
    traced: Any = torch.jit.trace(make_network(), pictures(2))
    traced.save(path)


def export(path: Path) -> None:
    program = torch.export.export(
        make_network(), (pictures(2),), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)
    )
    torch.export.save(program, path)


WRITERS: dict[str, Callable[[Path], None]] = {"script.pt": script, "trace.pth": trace, "export.pt2": export}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("programs")
    for name, write in WRITERS.items():
        write(folder / name)
    return {name: folder / name for name in WRITERS}


def open_program(path: Path) -> Target:
    return open_target(TargetFile(str(path), image_shape=(1, 8, 8), trust_model=True)).target


@pytest.mark.parametrize("name", WRITERS)
def test_a_program_is_refused_until_it_is_trusted(programs, name):
    with pytest.raises(UnsafeInput, match=r"can run code when it is opened.*--trust-model") as refused:
        open_target(TargetFile(str(programs[name]), image_shape=(1, 8, 8)))
    assert "\n" not in str(refused.value)
    assert ("torch.export" if name.endswith("pt2") else "TorchScript") in str(refused.value)


@pytest.mark.parametrize("name", WRITERS)
def test_a_trusted_program_answers_as_its_network_and_grants_its_gradient(programs, name):
    opened = open_target(TargetFile(str(programs[name]), image_shape=(1, 8, 8), trust_model=True))
    assert any("trusted by --trust-model" in finding for finding in opened.findings)
    network, images = make_network(), pictures(5)
    assert torch.allclose(answers(opened.target, images), network(images).detach(), atol=1e-5)
    target, findings = probe_target(opened.target)
    assert target == opened.target
    assert not any("training mode" in finding for finding in findings)
    pixels, plain = images.clone().requires_grad_(), images.clone().requires_grad_()
    WhiteBox(target).logits(pixels).square().sum().backward()
    network(plain).square().sum().backward()
    assert pixels.grad is not None
    assert torch.allclose(pixels.grad, plain.grad, atol=1e-5)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", WRITERS)
def test_a_damaged_program_is_refused_in_one_line(programs, tmp_path, name):
    with zipfile.ZipFile(programs[name]) as whole, zipfile.ZipFile(tmp_path / name, "w") as damaged:
        for member in whole.infolist():
            is_program = member.filename.endswith((".py", "model.json"))
            damaged.writestr(member, b"{" if is_program else whole.read(member))
    with pytest.raises(TargetInvalid, match="cannot be opened as") as refused:
        open_program(tmp_path / name)
    assert "\n" not in str(refused.value)
