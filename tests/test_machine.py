import platform
import time
from pathlib import Path

import pytest
import torch
from torch import nn

from patchmi import machine

PROCESSOR = Path("/proc/cpuinfo")
without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="is about the processor")


def test_the_device_is_one_that_tensors_can_live_on() -> None:
    assert torch.zeros(2, device=machine.device()).sum() == 0
    assert (machine.device().type == "cuda") == torch.cuda.is_available()


@without_cuda
@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64") or not PROCESSOR.exists(),
    reason="reads an x86 Linux's flags",
)
def test_bfloat16_is_fast_only_where_the_processor_lists_an_instruction_for_it() -> None:
    flags = set(PROCESSOR.read_text().split("flags", 1)[1].split("\n", 1)[0].split())
    assert machine.has_fast_bfloat16() == bool(flags & {"avx512_bf16", "amx_bf16", "avx_ne_convert"})


@without_cuda
@pytest.mark.parametrize("has_instructions", [True, False])
def test_avx512_alone_does_not_make_bfloat16_fast(
    has_instructions: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_supported", lambda: True)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: has_instructions)
    takes_bfloat16 = torch.backends.mkldnn.is_available() and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert machine.has_fast_bfloat16() == (has_instructions and takes_bfloat16)


def test_auto_asks_the_machine_and_a_named_format_overrides_it() -> None:
    assert machine.number_format() == ("bfloat16" if machine.has_fast_bfloat16() else "float32")
    assert machine.number_format("float32") == "float32"
    assert machine.number_format("bfloat16") == "bfloat16"


def test_products_run_in_the_chosen_format_and_sums_in_float32() -> None:
    matrix = torch.ones(4, 4, device=machine.device())
    with machine.mixed_precision("bfloat16"):
        assert (matrix @ matrix).dtype == torch.bfloat16
        assert (
            nn.functional.cross_entropy(matrix, torch.zeros_like(matrix[0], dtype=torch.long)).dtype
            == torch.float32
        )
        with machine.mixed_precision("float32"):
            assert (matrix @ matrix).dtype == torch.float32
    assert (matrix @ matrix).dtype == torch.float32


def test_a_weight_changed_between_two_uses_in_one_context_is_seen_changed() -> None:
    layer = nn.Linear(2, 1, bias=False).to(machine.device())
    row = torch.ones(1, 2, device=machine.device())
    with machine.mixed_precision("bfloat16"):
        layer(row)
        with torch.no_grad():
            layer.weight.fill_(3.0)
        assert layer(row).item() == 6.0


def test_a_placed_network_is_itself_channels_last_with_the_same_weights() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    placed = machine.place(network)
    assert placed is network
    convolution = placed[0].weight
    assert isinstance(convolution, torch.Tensor)
    assert convolution.is_contiguous(memory_format=torch.channels_last)
    assert convolution.device.type == machine.device().type
    for name, value in placed.state_dict().items():
        assert torch.equal(value.cpu(), before[name])


@without_cuda
def test_the_clock_that_costs_are_compared_by_stands_while_nothing_is_computed() -> None:
    began = machine.work_seconds()
    time.sleep(0.3)
    assert machine.work_seconds() - began < 0.1
    deadline = time.monotonic() + 60
    while machine.work_seconds() - began < 0.2:
        torch.ones(1000, 1000).sum()
        assert time.monotonic() < deadline
