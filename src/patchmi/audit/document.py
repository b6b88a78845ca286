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
from patchmi.audit.plan import Findings, Judge, Pictures, Plan, Private
from patchmi.audit.stages import Attacked
from patchmi.data import Source, overlap
from patchmi.metrics import Estimate
from patchmi.target import Account, Target
from patchmi.types import Access, Images
from patchmi.verdict import Verdict

UNKNOWN_PUBLIC = "some that were not declared"
"""What the report calls the attacker's images where nobody said which they were."""

INVERSION: dict[Access, str] = {
    "white-box": "Model inversion with the model's weights",
    "score": "Model inversion with class scores only",
    "label": "Model inversion with labels only",
}
"""Model inversion by what it sees of the target, the widest access first."""
OTHER_ATTACKS = (
    ("Membership inference", "out", "patchmi asks what classes look like, not who was a member"),
    ("Attribute inference", "out", "needs records with attributes"),
    ("Reconstruction of single training images", "out", "the ratio to the nearest images is a hint only"),
    ("Exfiltration and regurgitation", "out", "concern models that generate"),
)


def describe_target(target: Target, digest: str, accuracy: Estimate | None) -> dict[str, Any]:
    """The result's `target`; its accuracy is null where it saw no held-out images.

    A model at an address has no digest: that of the address would look like one of its weights.
    """
    return {
        "name": target.name,
        "architecture": target.architecture,
        "accuracy": None if accuracy is None else accuracy.value,
        "accuracy_interval": None if accuracy is None else asdict(accuracy),
        "address": target.address,
        "sha256": digest if target.address is None else None,
        "class_count": target.class_count,
        "image_shape": list(target.image_shape),
        "batch_norm_layers": target.batch_norm_layer_count,
    }


def describe_unknown_target(class_names: tuple[str, ...], images: Images) -> dict[str, Any]:
    """The result's `target` where only pictures were given."""
    return {
        "name": "a target that was not given",
        "architecture": "unknown",
        "accuracy": None,
        "accuracy_interval": None,
        "address": None,
        "sha256": None,
        "class_count": len(class_names),
        "image_shape": list(images.shape[1:]),
        "batch_norm_layers": 0,
    }


def describe_judge(judge: Judge, accuracy: Estimate | None) -> dict[str, Any]:
    """One entry of the result's `judges`; its accuracy is null where there are no held-out images."""
    return {
        "name": judge.name,
        "architecture": judge.architecture,
        "trained_on": judge.trained_on,
        "accuracy": None if accuracy is None else accuracy.value,
        "accuracy_interval": None if accuracy is None else asdict(accuracy),
    }


def describe_attack(plan: Plan, runs: list[Attacked]) -> dict[str, Any]:
    """The result's `attack`: steps of one generator, seconds and queries of all seeds."""
    queries = [asdict(one.queries) for one in runs]
    accounts = [one.account for one in runs if one.account is not None]
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
        **({"black_box": describe_accounts(plan, accounts)} if accounts else {}),
    }


def describe_accounts(plan: Plan, accounts: list[Account]) -> dict[str, Any]:
    """What a black box was asked over all seeds, for what, and how often each class was the answer."""
    stages = dict.fromkeys(stage for one in accounts for stage in one.stages)
    asked, rate = sum(one.asked for one in accounts), plan.grant.images_per_second
    return {
        "budget": plan.grant.budget,
        "mode": asdict(plan.grant.mode),
        "images_per_second": rate,
        "seconds_at_rate": None if rate is None else asked / rate,
        "asked": asked,
        "repeated": sum(one.repeated for one in accounts),
        "stages": {stage: sum(one.stages.get(stage, 0) for one in accounts) for stage in stages},
        "answered": [sum(counts) for counts in zip(*(one.answered for one in accounts), strict=True)],
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


def describe_threat(
    public: Source | None, private: Private | None, *, access: Access, release_context: str
) -> dict[str, Any]:
    """The result's `threat`: what the attacker had.

    Args:
        public: The attacker's images; None where they are not known.
        private: Compared with them, image by image.
        access: What the attacker saw of the target.
        release_context: Who can reach the target.
    """
    shared = None
    if public is not None and private is not None:
        shared = overlap(public=public.images, private=private.train_images)
    return {
        "access": access,
        "public": UNKNOWN_PUBLIC if public is None else public.description,
        "public_count": 0 if public is None else len(public.images),
        "release_context": release_context,
        "public_is_private_overlap": None if shared is None else shared.exact_count,
        "public_near_private": None if shared is None else shared.near_count,
    }


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


def header(command: str) -> dict[str, Any]:
    """What identifies a result: form, time, version, the command that makes it again, and where it ran."""
    return {
        "schema": "patchmi.result/1",
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "patchmi_version": version("patchmi"),
        "command": command,
        "environment": describe_environment(),
    }


def describe_findings(findings: Findings) -> dict[str, list[str]]:
    """The result's `findings`."""
    return {"target": list(findings.target), "images": list(findings.images)}


def describe_verdict(decided: Verdict) -> dict[str, Any]:
    """The result's `verdict`."""
    return {"word": decided.word, "sentence": decided.sentence, "reasons": list(decided.reasons)}


def describe_pictures(pictures: Pictures) -> dict[str, Any]:
    """The result's `attack` where it was made elsewhere, at a cost that is not known."""
    return {
        "name": pictures.made_by,
        "recipe": "unknown",
        "config": {},
        "steps": 0,
        "seconds": 0.0,
        "seeds": pictures.seeds.unique().tolist(),
        "queries": {"forward": 0, "backward": 0, "images": 0},
        "notes": ["The pictures were made elsewhere: steps, seconds and queries are not known, not zero."],
    }


def not_tested(access: Access) -> list[dict[str, str]]:
    """Attacks that an audit with this access did not run, for the coverage table."""
    widest_first = list(INVERSION)
    others = [
        (
            attack,
            "in",
            f"this audit granted {access} access, which is less; more may come out with it"
            if widest_first.index(other) < widest_first.index(access)
            else f"the target was audited with {access} access, which grants more",
        )
        for other, attack in INVERSION.items()
        if other != access
    ]
    return [
        {"attack": attack, "scope": scope, "reason": reason}
        for attack, scope, reason in (*others, *OTHER_ATTACKS)
    ]
