"""`result.json`: everything an audit measured, in the contract's form."""

import os
import platform
import resource
import sys
from dataclasses import asdict, fields, is_dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from patchmi import machine
from patchmi.attacks import AbstractAttack
from patchmi.audit.plan import Judge, Plan, Private
from patchmi.audit.stages import Attacked
from patchmi.metrics import Estimate
from patchmi.target import Target

NOT_TESTED = (
    ("Model inversion with class scores only", "in", "the target was audited white-box, which grants more"),
    ("Model inversion with labels only", "in", "the target was audited white-box, which grants more"),
    ("Membership inference", "out", "patchmi asks what classes look like, not who was a member"),
    ("Attribute inference", "out", "needs records with attributes"),
    ("Reconstruction of single training images", "out", "the ratio to the nearest images is a hint only"),
    ("Exfiltration and regurgitation", "out", "concern models that generate"),
)


def describe_target(target: Target, digest: str, accuracy: Estimate) -> dict[str, Any]:
    """The result's `target`."""
    return {
        "name": target.name,
        "architecture": target.architecture,
        "accuracy": accuracy.value,
        "accuracy_interval": asdict(accuracy),
        "sha256": digest,
        "class_count": target.class_count,
        "image_shape": list(target.image_shape),
        "batch_norm_layers": target.batch_norm_layer_count,
    }


def describe_judge(judge: Judge, accuracy: Estimate) -> dict[str, Any]:
    """One entry of the result's `judges`."""
    return {
        "name": judge.name,
        "architecture": judge.architecture,
        "trained_on": judge.trained_on,
        "accuracy": accuracy.value,
        "accuracy_interval": asdict(accuracy),
    }


def describe_attack(plan: Plan, runs: list[Attacked]) -> dict[str, Any]:
    """The result's `attack`: steps of one generator, seconds and queries of all seeds."""
    queries = [asdict(one.queries) for one in runs]
    notes = dict.fromkeys(note for one in runs for note in one.reconstructions.notes)
    return {
        "name": type(plan.attack).__name__,
        "recipe": recipe_name(plan.attack),
        "config": describe(plan.attack),
        "steps": runs[0].step_count,
        "seconds": sum(one.seconds for one in runs),
        "seeds": list(plan.seeds),
        "queries": {name: sum(query[name] for query in queries) for name in queries[0]},
        "notes": list(notes),
    }


def recipe_name(attack: AbstractAttack) -> str:
    """The name of an attack's recipe, `default` where it has none."""
    recipe = getattr(attack, "recipe", "default")
    return recipe if isinstance(recipe, str) else recipe.name


def describe(attack: AbstractAttack) -> dict[str, Any]:
    """An attack's settings as JSON: functions by their names."""
    return {name: _plain(value) for name, value in vars(attack).items()}


def _plain(value: Any) -> Any:
    """A setting as JSON, the same in every process: the text of a function would hold its address."""
    if is_dataclass(value):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if callable(value):
        return getattr(value, "__qualname__", type(value).__qualname__)
    return value if isinstance(value, str | int | float | bool | None) else repr(value)


def describe_threat(plan: Plan, private: Private) -> dict[str, Any]:
    """The result's `threat`."""
    return {
        "access": "white-box",
        "public": plan.public.description,
        "public_count": len(plan.public.images),
        "release_context": plan.release_context,
        "public_is_private_overlap": _overlap(plan, private),
    }


def _overlap(plan: Plan, private: Private) -> int:
    """How many public images are, byte by byte, private ones too."""
    known = {image.numpy().tobytes() for image in (private.train_images * 255).round().byte()}
    public = (plan.public.images * 255).round().byte()
    return sum(image.numpy().tobytes() in known for image in public)


def describe_environment() -> dict[str, Any]:
    """Versions, machine and peak memory of this process."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors",
        "processor": machine.processor_name(),
        "threads": torch.get_num_threads(),
        "precision": machine.number_format(),
        "peak_memory_bytes": peak if sys.platform == "darwin" else peak * 1024,
    }


def header(plan: Plan) -> dict[str, Any]:
    """What identifies a result."""
    return {
        "schema": "patchmi.result/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "patchmi_version": version("patchmi"),
        "command": plan.command,
        "environment": describe_environment(),
    }


def not_tested() -> list[dict[str, str]]:
    """Attacks that this audit did not run, for the coverage table."""
    return [{"attack": attack, "scope": scope, "reason": reason} for attack, scope, reason in NOT_TESTED]
