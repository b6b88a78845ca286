"""Image classifiers in a folder as Hugging Face's transformers lays it out, here or on the hub."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from patchmi.errors import UnsafeInput
from patchmi.target.reading import Reading, TargetInvalid, in_one_line, listed
from patchmi.target.torchvision_import import make_torchvision_importable

CONFIGURATION = "config.json"
_WEIGHTS, _INDEX = "model.safetensors", "model.safetensors.index.json"
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def download(source: str) -> Path:
    """Fetch a classifier's configuration and safetensors, and nothing else that the repository holds.

    Args:
        source: `OWNER/NAME`, or `OWNER/NAME@REVISION`.

    Returns:
        The folder, in the hub library's cache.

    Raises:
        TargetInvalid: If there is no such repository, or no way to it.
    """
    if not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(@\w[\w./-]*)?", source):
        raise TargetInvalid(f"hub:{source}: give hub:OWNER/NAME or hub:OWNER/NAME@REVISION")
    name, _, revision = source.partition("@")
    try:
        from huggingface_hub import snapshot_download

        patterns = [CONFIGURATION, *_PROCESSORS, "model*.safetensors", _INDEX]
        return Path(snapshot_download(name, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # noqa: BLE001 - the library raises errors of many kinds
        raise TargetInvalid(f"hub:{source}: cannot be fetched ({in_one_line(error)})") from None


def read_hugging_face(folder: Path) -> Reading:
    """An image classifier, with label names, normalisation and size from its own configuration.

    Args:
        folder: With `config.json` and safetensors; nothing outside it is read, no code in it is run.

    Raises:
        UnsafeInput: If it holds pickled weights only, or needs code of its own.
        TargetInvalid: If it is no image classifier that transformers knows, or its weights do not fit.
    """
    configuration = _read_json(folder / CONFIGURATION)
    _refuse_what_leads_elsewhere(folder, configuration)
    make_torchvision_importable()
    try:
        from transformers import AutoConfig, AutoModelForImageClassification
        from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES
        from transformers.utils.logging import disable_progress_bar
    except ImportError as error:
        raise TargetInvalid(
            f"{folder}: transformers cannot be imported ({in_one_line(error)}): pip install 'patchmi[hub]'"
        ) from None
    kind = configuration.get("model_type")
    if str(kind) not in MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES:
        raise TargetInvalid(f"{folder}: {kind} is no image classifier that transformers knows")
    weights = _weight_files(folder)
    offline: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
    try:
        disable_progress_bar()
        config = AutoConfig.from_pretrained(folder, **offline)
        model, loading = AutoModelForImageClassification.from_pretrained(
            folder,
            config=config,
            use_safetensors=True,
            output_loading_info=True,
            attn_implementation="eager",  # a configuration may name code on the hub here
            **offline,
        )
        channel_count = int(getattr(config, "num_channels", 3))
        side = _pair(getattr(config, "image_size", None))
    except Exception as error:  # noqa: BLE001 - the library raises errors of many kinds
        raise TargetInvalid(f"{folder}: transformers cannot open it ({in_one_line(error)})") from None
    if lacking := [str(name) for name in sorted(loading["missing_keys"])]:
        raise TargetInvalid(f"{folder}: the weights lack {listed(lacking)}; save the whole model again")
    names: dict[int, str] = model.config.id2label
    try:
        class_names = tuple(str(names[label]) for label in range(len(names)))
    except KeyError as error:
        raise TargetInvalid(
            f"{folder}: id2label in {CONFIGURATION} has no label {error}; number them from 0"
        ) from None
    mean, std, processed_side, findings = _preprocessing(folder, channel_count, offline)
    side = processed_side or side
    return Reading(
        model.float().eval(),
        weights,
        type(model).__name__,
        class_names,
        (channel_count, *side) if side else None,
        mean,
        std,
        findings=(f"Class names are those of {CONFIGURATION}.", *findings),
    )


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TargetInvalid(
            f"{path.parent}: no {path.name} there; give a folder made by save_pretrained, or a model file"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise TargetInvalid(f"{path}: cannot be read ({in_one_line(error)})") from None
    if not isinstance(content, dict):
        raise TargetInvalid(f"{path}: holds no configuration; save the model again")
    return content


def _weight_files(folder: Path) -> tuple[Path, ...]:
    """The safetensors that the library will read: one file, or the parts that an index lists."""
    if (folder / _WEIGHTS).is_file():
        return (folder / _WEIGHTS,)
    if not (folder / _INDEX).is_file():
        raise UnsafeInput(
            f"{folder} has no {_WEIGHTS}, and pickled weights could run code; nothing was opened; "
            "save it again with model.save_pretrained(folder, safe_serialization=True)"
        )
    parts = _read_json(folder / _INDEX).get("weight_map")
    names = sorted({str(name) for name in parts.values()}) if isinstance(parts, dict) else []
    if odd := [name for name in names if not re.fullmatch(r"[\w.-]+\.safetensors", name)]:
        raise UnsafeInput(
            f"{folder / _INDEX} lists {listed(odd)}, which may be a pickle; nothing was opened; "
            "save it again with save_pretrained"
        )
    return tuple(folder / name for name in names)


def _refuse_what_leads_elsewhere(folder: Path, configuration: dict[str, Any]) -> None:
    """Configurations that would have the library read, fetch or run other things than safetensors."""
    # By these the library asks timm, which takes names of files and of hub repositories.
    if "architecture" in configuration or configuration.get("model_type") == "timm_wrapper":
        name = configuration.get("architecture", "NAME")
        raise TargetInvalid(f"{folder}: a model of timm; give timm:{name} with its {_WEIGHTS} as --weights")
    if (folder / "adapter_config.json").exists():
        raise TargetInvalid(
            f"{folder}: an adapter of another model; merge it into that one and save the whole"
        )
    if "quantization_config" in configuration:
        raise TargetInvalid(f"{folder}: a quantised model; save the one it was made from")
    if "transformers_weights" in configuration:
        raise UnsafeInput(
            f"{folder} names another file of weights (transformers_weights in {CONFIGURATION}), which may be "
            "a pickle; nothing was opened; save it again with save_pretrained"
        )
    if "auto_map" in configuration:
        raise UnsafeInput(
            f"{folder} brings code of its own (auto_map in {CONFIGURATION}); nothing was opened; give its "
            "state dict with --architecture package.module:function"
        )


def _preprocessing(
    folder: Path, channel_count: int, offline: dict[str, Any]
) -> tuple[tuple[float, ...], tuple[float, ...], tuple[int, int] | None, tuple[str, ...]]:
    """Mean and standard deviation for images in [0, 1], height and width, and where they are from."""
    files = [name for name in _PROCESSORS if (folder / name).exists()]
    if not files:
        return (
            (),
            (),
            None,
            ("No preprocessor was found: images are not normalised unless mean and std are given.",),
        )
    from transformers import AutoImageProcessor

    try:
        said = AutoImageProcessor.from_pretrained(folder, **offline).to_dict()
        scale = 255 * said.get("rescale_factor", 1 / 255) if said.get("do_rescale") else 255.0
        normalises = said.get("do_normalize") and said.get("image_mean") is not None
        mean = _for_each_channel(said["image_mean"] if normalises else 0.0, channel_count, scale)
        std = _for_each_channel(said["image_std"] if normalises else 1.0, channel_count, scale)
        side = _pair(said.get("crop_size") if said.get("do_center_crop") else None) or _pair(said.get("size"))
    except Exception as error:  # noqa: BLE001 - the library raises errors of many kinds
        raise TargetInvalid(f"{folder / files[0]}: cannot be used ({in_one_line(error)})") from None
    if said.get("do_flip_channel_order"):
        raise TargetInvalid(
            f"{folder / files[0]}: the model takes blue before red; give its state dict with --architecture "
            "package.module:function, where the function turns the channels"
        )
    return mean, std, side, (f"Mean, standard deviation, scale and size are those of {files[0]}.",)


def _for_each_channel(
    numbers: float | Sequence[float], channel_count: int, scale: float
) -> tuple[float, ...]:
    """What a processor does to pixels of 0 to 255, in terms of pixels in [0, 1]."""
    each = numbers if isinstance(numbers, Sequence) else [numbers] * channel_count
    return tuple(float(number) / scale for number in each)


def _pair(size: Any) -> tuple[int, int] | None:
    """Height and width in one of the ways that configurations have to say them."""
    if isinstance(size, int):
        return size, size
    if isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    if isinstance(size, dict) and size.get("height") and size.get("width"):
        return int(size["height"]), int(size["width"])
    if isinstance(size, dict) and size.get("shortest_edge"):
        return int(size["shortest_edge"]), int(size["shortest_edge"])
    return None
