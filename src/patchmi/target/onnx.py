"""ONNX models, run by onnxruntime: they answer, and no gradient comes back."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.errors import UnsafeInput
from patchmi.target.reading import Reading, TargetInvalid, in_one_line
from patchmi.types import Images, Logits

SIZE_LIMIT = 4 << 30
"""Bytes of a model with its external data."""

_NUMBERS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


class OnnxClassifier(nn.Module):
    """A session of onnxruntime as a module. Copies share the session, which holds no state between calls.

    Args:
        session: Of a model with one input, images N×C×H×W of floating-point numbers.
        output: Name of the output that is N×classes.
    """

    def __init__(self, session: Any, output: str) -> None:
        super().__init__()
        self._session = session
        self._output = output
        (images,) = session.get_inputs()
        self._input = images.name
        self._numbers = _NUMBERS[images.type]
        self._batch_size = images.shape[0] if isinstance(images.shape[0], int) else None

    def __deepcopy__(self, memo: dict[int, Any]) -> "OnnxClassifier":
        return type(self)(self._session, self._output)

    def forward(self, images: Images) -> Logits:
        """What the model answers, on the device of the images."""
        batch_size = self._batch_size or max(1, len(images))
        logits = torch.cat([self._answer(part, batch_size) for part in images.detach().split(batch_size)])
        return logits.to(images.device)

    def _answer(self, images: Images, batch_size: int) -> Logits:
        # A graph of fixed batch size takes no fewer.
        whole = F.pad(images, (0, 0, 0, 0, 0, 0, 0, batch_size - len(images)))
        values = np.ascontiguousarray(whole.cpu().numpy(), dtype=self._numbers)
        (logits,) = self._session.run([self._output], {self._input: values})
        return torch.from_numpy(logits)[: len(images)].float()


def read_onnx(path: Path) -> Reading:
    """A classifier that grants scores only.

    Args:
        path: The model; large tensors may lie beside it.

    Raises:
        UnsafeInput: If it names files outside its folder.
        TargetInvalid: If it is damaged, too large, or does not map one batch of images to scores.
    """
    try:
        import onnx
        import onnxruntime
    except ImportError:
        raise TargetInvalid(f"{path}: ONNX needs onnxruntime and onnx: pip install 'patchmi[onnx]'") from None
    _refuse_too_large(path, (path,))
    try:
        graph = onnx.load(str(path), load_external_data=False)
    except Exception as error:  # noqa: BLE001 - the library raises errors of many kinds
        raise TargetInvalid(
            f"{path}: cannot be read as ONNX ({in_one_line(error)}); export it again"
        ) from None
    files = (path, *_external_files(path, graph))
    _refuse_too_large(path, files)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4
    try:
        # its fallback would try the same again, and print
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"], enable_fallback=False
        )
    except Exception as error:  # noqa: BLE001 - the library raises errors of many kinds
        raise TargetInvalid(f"{path}: onnxruntime cannot open it ({in_one_line(error)})") from None
    inputs = session.get_inputs()
    if len(inputs) != 1 or inputs[0].type not in _NUMBERS or len(inputs[0].shape) != 4:
        said = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs)
        raise TargetInvalid(
            f"{path}: its inputs are {said}; give a model of one input, floating point N×C×H×W"
        )
    shape = inputs[0].shape[1:]
    if shape[2] in (1, 3) and shape[0] not in (1, 3):
        raise TargetInvalid(f"{path}: takes images N×H×W×C ({inputs[0].shape}); export it for N×C×H×W")
    outputs = [one.name for one in session.get_outputs() if one.type in _NUMBERS and len(one.shape) == 2]
    if not outputs:
        said = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in session.get_outputs())
        raise TargetInvalid(f"{path}: its outputs are {said}; one must be scores, N×classes")
    return Reading(
        OnnxClassifier(session, outputs[0]).eval(),
        files,
        "ONNX",
        image_shape=tuple(shape) if all(isinstance(size, int) for size in shape) else None,  # pyright: ignore[reportArgumentType]
        access="score",
        findings=("The model is ONNX: it answers scores, and no gradient reaches the pixels.",),
    )


def _external_files(path: Path, graph: Any) -> tuple[Path, ...]:
    """The files that hold the tensors which the model keeps outside, all of them in its folder."""
    folder = path.parent.resolve()
    files = set()
    for location in _external_locations(graph):
        file = (folder / location).resolve()
        if not file.is_relative_to(folder):
            raise UnsafeInput(
                f"{path} reads {location!r}, which lies outside its folder; nothing was opened; "
                "export it in one file"
            )
        if not file.is_file():
            raise TargetInvalid(f"{path}: the file {location!r} beside it is missing; copy both")
        files.add(file)
    return tuple(sorted(files))


def _external_locations(message: Any) -> Iterator[str]:
    """Where tensors lie that are not in the model, at any depth of graphs, functions and attributes."""
    if message.DESCRIPTOR.name == "TensorProto":
        if message.data_location == message.EXTERNAL:
            yield from (entry.value for entry in message.external_data if entry.key == "location")
        return
    for field, value in message.ListFields():
        if field.message_type is not None:
            for part in value if not hasattr(value, "DESCRIPTOR") else [value]:
                yield from _external_locations(part)


def _refuse_too_large(path: Path, files: tuple[Path, ...]) -> None:
    size = sum(file.stat().st_size for file in files)
    if size > SIZE_LIMIT:
        raise TargetInvalid(
            f"{path}: {size:,} bytes, more than the {SIZE_LIMIT:,} that patchmi opens as ONNX"
        )
