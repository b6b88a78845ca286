"""A whole, believable result and its pictures, made from a seed."""

import copy
import json
from typing import Any

import numpy as np
import pytest
from matplotlib import font_manager
from PIL import Image, ImageDraw, ImageFont
from safetensors.numpy import save_file

JUDGES = ("resnet", "convnet", "hog-knn")
ARMS = {
    "attack": 0.96,
    "random": 0.1,
    "untrained_attack": 0.14,
    "public_selected": 0.21,
    "permuted_labels": 0.1,
}
ARMS["held_out"] = 0.97
RANKS = [0, 25, 50, 75, 100]
STEPS = [0, 50, 100, 200, 300]


def measured(value: float, spread: float = 0.03, n: int = 30) -> dict[str, Any]:
    low, high = max(0.0, value - spread), value + spread if value > 1 else min(1.0, value + spread)
    return {"value": round(value, 5), "low": round(low, 5), "high": round(high, 5), "n": n}


def of_a_black_box(result: dict[str, Any]) -> dict[str, Any]:
    """The result of an attack that sent images to a model which only answers."""
    result["threat"]["access"] = "label"
    result["attack"]["black_box"] = {
        "budget": 3000,
        "mode": {"top_k": None, "decimals": None, "noise": 0.0, "temperature": 1.0},
        "asked": 8400,
        "repeated": 12,
        "stages": {"public images": 5400, "votes on the final images": 3000},
        "answered": [840] * 10,
    }
    result["attack"]["queries"] = {"forward": 40, "backward": 0, "images": 8400}
    for entry in result["history"]:
        entry["queries"] = 1000 + 5 * entry["step"] + entry["seed"]
    return result


def make_result(class_count: int = 10, seeds: tuple[int, ...] = (0, 1, 2)) -> dict[str, Any]:
    random = np.random.default_rng(7)
    success = 1 - random.beta(1.2, 20, size=class_count)
    return {
        "schema": "patchmi.result/1",
        "created": "2026-02-03T14:05:09+00:00",
        "patchmi_version": "0.1.0",
        "command": f"patchmi audit --target target.safetensors --public strokes --seeds {len(seeds)}",
        "environment": {
            "python": "3.12.4",
            "torch": "2.13.0",
            "machine": "x86_64",
            "processor": "Intel Xeon, 2 cores",
            "threads": 2,
            "precision": "bfloat16",
            "peak_memory_bytes": 1_432_000_000,
        },
        "target": {
            "name": "Handwritten digits, ResNet-10",
            "architecture": "ResNet-10, width 16",
            "accuracy": 0.9743,
            "accuracy_interval": measured(0.9743, 0.011, 1000),
            "sha256": "3f" * 32,
            "class_count": class_count,
            "image_shape": [1, 32, 32],
            "batch_norm_layers": 9,
        },
        "threat": {
            "access": "white-box",
            "public": "random strokes, no letters, no digits",
            "public_count": 20_000,
            "release_context": "open-weights",
            "public_is_private_overlap": 0,
        },
        "attack": {
            "name": "patch_mi",
            "recipe": "default",
            "config": {
                "steps": 300,
                "batch_size": 64,
                "patch_sizes": [6, 16],
                "learning_rate": 0.001,
                "views": True,
            },
            "steps": 300,
            "seconds": 131.4,
            "seeds": list(seeds),
            "queries": {"forward": 1200, "backward": 1200, "images": 76_800},
            "notes": [],
        },
        "judges": [
            {
                "name": name,
                "architecture": f"{name}, its own architecture",
                "trained_on": "4,000 private training images",
                "accuracy": 0.97,
                "accuracy_interval": measured(0.97, 0.012, 1000),
            }
            for name in JUDGES
        ],
        "agreement": {
            "judges": list(JUDGES),
            "kappa": [[1.0, 0.93, 0.88], [0.93, 1.0, 0.9], [0.88, 0.9, 1.0]],
        },
        "extractor": "judge resnet",
        "neighbours": 3,
        "scores": {
            "judge_top1": measured(0.9617),
            "judge_top5": measured(0.9987, 0.001),
            "confidence": measured(0.9421),
            "consensus_top1": measured(0.9655),
            "worst_class_top1": measured(0.8433, 0.06),
            "target_top1": measured(0.9981, 0.0012),
            "precision": measured(0.7312, 0.05),
            "recall": measured(0.0714, 0.02),
            "density": measured(1.1634, 0.2),
            "coverage": measured(0.2819, 0.04),
            "frechet_distance": measured(23.47, 1.9),
            "student_accuracy": measured(0.7216, 0.028, 1000),
        },
        "controls": {
            arm: {"judge_top1": measured(value), "consensus_top1": measured(max(0.0, value - 0.02))}
            for arm, value in ARMS.items()
            if arm != "attack"
        },
        "judge_scores": [
            {"judge": judge, "arm": arm, "top1": measured(min(1.0, value + 0.012 * shift))}
            for arm, value in ARMS.items()
            for shift, judge in enumerate(JUDGES, start=-1)
        ],
        "classes": [
            {
                "label": label,
                "name": str(label),
                "judge_top1": measured(float(success[label]), 0.05, 300),
                "consensus_top1": measured(float(success[label]), 0.04, 300),
                "confidence": round(float(success[label]) * 0.98, 4),
                "target_top1": 1.0,
                "precision": round(float(random.uniform(0.6, 0.9)), 4),
                "recall": round(float(random.uniform(0.02, 0.2)), 4),
                "density": round(float(random.uniform(0.5, 1.3)), 4),
                "coverage": round(float(random.uniform(0.1, 0.4)), 4),
                "nearest_ratio": round(float(random.normal(1.01, 0.02)), 4),
            }
            for label in range(class_count)
        ],
        "neighbours_ratio": measured(1.0083, 0.014),
        "history": [
            {
                "seed": seed,
                "step": step,
                "seconds": step * 0.44,
                "judge_top1": round(float(min(0.97, 0.1 + 0.9 * (1 - np.exp(-step / (70 + 12 * seed))))), 4),
                "worst_class_top1": round(float(max(0.0, 0.9 * (1 - np.exp(-(step - 40) / 90)))), 4),
                "target_top1": round(float(1 - 0.9 * np.exp(-step / 30)), 4),
            }
            for seed in seeds
            for step in STEPS
        ],
        "verdict": {
            "word": "EXPOSED",
            "sentence": "With white-box access and random strokes as public images, attack patch_mi produced "
            "images that "
            "at least 2 of 3 independent judges assign to the target class in 10 of 10 classes (success .97 "
            "[.94, 1.00]; "
            "best control .19; real held-out images .95).",
            "reasons": ["The lower bound of the lift over the best control, .72, is above .10."],
        },
        "not_tested": [
            {
                "attack": "Model inversion, score access",
                "scope": "in",
                "reason": "another audit of this suite",
            },
            {"attack": "Membership inference", "scope": "out", "reason": "asks about single records"},
        ],
        "artefacts": {"reconstructions.safetensors": "ab" * 32, "config.json": "0c" * 32},
    }


def make_evidence(
    class_count: int = 10, channels: int = 1, side: int = 32
) -> tuple[dict[str, Any], dict[str, str]]:
    random = np.random.default_rng(11)
    shapes = {
        "held_out": (class_count, 4),
        "reconstructions": (class_count, len(RANKS)),
        "nearest_public": (class_count, len(RANKS)),
        "untrained": (class_count, 4),
        "noise": (class_count, 4),
        "history": (len(STEPS), class_count),
    }
    arrays = {
        name: random.integers(0, 256, size=(*shape, channels, side, side), dtype=np.uint8)
        for name, shape in shapes.items()
    }
    return arrays, {"ranks": json.dumps(RANKS), "history_steps": json.dumps(STEPS)}


DIGITS = "0123456789"
"""The classes of the suite's targets."""
ATTACKS = {
    "general": (0.41, {"step_count": 2000, "learning_rate": 0.05}),
    "variational": (0.72, {"step_count": 3000, "miner": "flow", "latent_size": 100}),
    "patch-mi": (0.95, {"step_count": 1000, "patch_sizes": [18], "attack_weight": 3.0}),
}
"""Attack → (how well it does, its settings)."""
SUITE_SEEDS = 3


def make_suite() -> dict[str, Any]:
    """Three attacks by two public sets on two targets; one row failed, one missing; all numbers made up."""
    rows = [
        make_row(target, attack, public, shift=-0.07 * (public == "strokes") - 0.05 * (target == "letters"))
        for target in ("mnist", "letters")
        for attack in ATTACKS
        for public in ("devanagari", "strokes")
    ]
    rows += [
        make_row("mnist", f"weight-{weight}", "strokes", shift=0.1 * weight**0.3 - 0.1, attack_weight=weight)
        for weight in (1, 3, 10)
    ]
    for place, state, error in (
        (3, "failed", "out of memory: 2.0 GB asked for, 1.6 GB free; raise memory_gb or use --small"),
        (11, "missing", None),
    ):
        rows[place].update(state=state, error=error, folder=None, scores={}, controls={}, verdict=None)
    return {
        "schema": "patchmi.suite/1",
        "title": "Digits and letters, three attacks",
        "description": "The comparison of the paper's first table, with two sets of public images.",
        "small_note": "ResNet-10 of width 16 instead of ResNet-18; 1,000 steps instead of 10,000",
        "created": "2026-02-03T14:05:09+00:00",
        "patchmi_version": "0.1.0",
        "command": "patchmi suite run suites/paper-mnist.toml --out out --small --data ../data",
        "environment": make_result()["environment"],
        "seeds": list(range(SUITE_SEEDS)),
        "count_per_class": 200,
        "wall_seconds": 2291.0,
        "targets": [make_suite_target(name) for name in ("mnist", "letters")],
        "rows": rows,
        "published": [
            {
                "target": "mnist",
                "attack": "general",
                "public": None,
                "note": "first ten classes only",
                "scores": {"judge_top1": 0.512, "judge_top5": 0.83, "frechet_distance": 211.4},
            },
            {
                "target": "mnist",
                "attack": "patch-mi",
                "public": "devanagari",
                "note": "table 1",
                "scores": {"judge_top1": 0.91, "coverage": 0.31, "target_top1": 0.997},
            },
        ],
        "curves": [
            {
                "title": "Accuracy against coverage",
                "along": "attack_weight",
                "scores": ["judge_top1", "coverage"],
                "points": [{"row": f"mnist/weight-{x}/strokes/none", "x": x} for x in (1, 3, 10)],
            }
        ],
    }


def make_row(
    target: str, attack: str, public: str, *, shift: float, attack_weight: float | None = None
) -> dict[str, Any]:
    success, settings = ATTACKS.get(attack, ATTACKS["patch-mi"])
    level = min(0.995, success + shift)
    own = make_result()
    spread = 0.012 + 0.12 * (1 - level)
    scores = {
        "judge_top1": measured(level, spread),
        "judge_top5": measured(min(1.0, level + 0.15), spread / 2),
        "confidence": measured(level - 0.03, spread),
        "consensus_top1": measured(level - 0.01, spread),
        "worst_class_top1": measured(max(0.0, level - 0.21), 2 * spread),
        "target_top1": measured(0.998, 0.001),
        "precision": measured(level**2, spread),
        "recall": measured(0.45 * level**3, spread),
        "density": measured(1.2 * level**2, 2 * spread),
        "coverage": measured(0.4 * level**3, spread),
        "frechet_distance": measured(20 + 150 * (1 - level), 3.0),
        "student_accuracy": measured(0.8 * level, 0.025, 1000) if target == "mnist" else None,
        "disjoint_top1": measured(level - 0.06, spread),
    }
    return {
        "id": f"{target}/{attack}/{public}/none",
        "target": target,
        "attack": attack,
        "public": public,
        "defence": "none",
        "state": "done",
        "error": None,
        "folder": f"cells/row/{target}/{attack}/{public}/none",
        "settings": settings | ({} if attack_weight is None else {"attack_weight": attack_weight}),
        "scores": scores,
        "controls": own["controls"],
        "verdict": "EXPOSED" if level > 0.8 else "NOT DEMONSTRATED" if level > 0.4 else "INCONCLUSIVE",
        "seconds": 400.5 * level,
        "queries": {"forward": 3600, "backward": 3600, "images": 230_400},
        "peak_memory_bytes": 1_432_000_000,
        "steps": 1000,
    }


def make_plane() -> dict[str, Any]:
    """Defences of every state and kind on digits; all numbers made up."""
    points = [
        make_point("none", None, 0.988, 0.96),
        make_point("early-stopping", 0.5, 0.979, 0.9),
        make_point("early-stopping", 0.8, 0.957, 0.78),
        make_point("early-stopping", 0.95, 0.81, 0.41),
        make_point("mid", 0.01, 0.985, 0.93, margin=0.05),
        make_point("mid", 0.1, 0.972, 0.8, margin=0.08),
        make_point("mid", 1.0, 0.93, 0.5, margin=0.11),
        make_point("rolss", 0.6, 0.984, 0.66, margin=0.3),
        make_point("rolss", 0.0, 0.968, 0.45, margin=0.3),
        make_point("at-at", 0.08, 0.983, 0.4, is_adaptively_tested=False),
        make_point("rounding", 1.0, 0.988, "bypassed", margin=0.6),
        make_point("rounding", 0.0, 0.988, "bypassed"),
        make_point("dp-sgd", 1.1, None, None, state="failed", error="out of memory: 2.0 GB asked for"),
        make_point("trap-mid", 0.05, None, None, state="missing", replicate_count=0),
    ]
    points[5].update(
        state="partial", error="seed 2 of 3 has no result", notes=["The bottleneck has 64 units."]
    )
    return {
        "title": "Defences of digits",
        "plain_attack": "patch-mi",
        "attacks": ["patch-mi", "margin"],
        "points": points,
        "power": {
            "has_power": True,
            "sentence": "The attacks got .98 from the positive control and .96 without a defence.",
        },
        "sentence": "Of 4 defences 1 gave away less than plain training that was stopped early.",
    }


def make_point(
    defence: str,
    strength: float | None,
    accuracy: float | None,
    plain: float | str | None,
    *,
    margin: float | None = None,
    **changes: Any,
) -> dict[str, Any]:
    """A defence at one strength; `margin` is what its adaptive attack got more than the plain one."""
    leakage: dict[str, Any] = {"patch-mi": measured(plain, 0.04) if isinstance(plain, float) else plain}
    if margin is not None:
        leakage["margin"] = measured(margin + (plain if isinstance(plain, float) else 0), 0.05)
    rates = {attack: rate["value"] for attack, rate in leakage.items() if isinstance(rate, dict)}
    best = max(rates, key=lambda attack: rates[attack]) if rates else None
    return {
        "defence": defence,
        "strength": strength,
        "name": defence if strength is None else f"{defence} {strength:g}",
        "state": "done",
        "error": None,
        "replicate_count": 3,
        "accuracy": accuracy and measured(accuracy, 0.0031, 30_000),
        "leakage": leakage,
        "strongest": best and {"attack": best, "leakage": leakage[best]},
        "early_stopped_leakage": accuracy and round(1 - 3 * (0.99 - accuracy), 3),
        "robust_accuracy": {
            change: accuracy and measured(accuracy - loss, 0.0052, 2000)
            for change, loss in (("1", 0.0714), ("0.25", 0.0213))
        },
        "cost": accuracy and 1.35,
        "adaptive": {"wanted": ["margin"], "done": ["margin"] if margin else []},
        "is_adaptively_tested": True,
        "notes": [],
        **changes,
    }


def make_suite_target(name: str) -> dict[str, Any]:
    return {
        "name": name,
        "architecture": "ResNet-10, width 16",
        "private": f"data:{name}, 12,000 images",
        "class_count": 10,
        "accuracy": measured(0.9871, 0.004, 10_000),
        "judges": [
            {
                "name": judge,
                "architecture": f"{judge}, its own architecture",
                "accuracy": measured(0.98, 0.005, 10_000),
            }
            for judge in JUDGES
        ],
        "disjoint_judge": {
            "name": "convmixer",
            "architecture": "ConvMixer",
            "accuracy": measured(0.97, 0.006, 10_000),
        },
        "shown_classes": list(DIGITS if name == "mnist" else "ABCDEFGHIJ"),
    }


def make_suite_pictures(suite: dict[str, Any]) -> dict[str, np.ndarray]:
    """Letters in noise: the better the row, the less of it. Of `mnist` real pictures may be shown."""
    pictures = {
        row["id"]: draw_letters(row["target"], clearness=row["scores"]["judge_top1"]["value"] ** 2)
        for row in suite["rows"]
        if row["state"] == "done"
    }
    return {"mnist/held_out": draw_letters("mnist", clearness=1.0), **pictures}


def draw_letters(target: str, *, clearness: float, side: int = 32) -> np.ndarray:
    random = np.random.default_rng(round(1000 * clearness))
    classes = DIGITS if target == "mnist" else "ABCDEFGHIJ"
    face = ImageFont.truetype(font_manager.findfont("DejaVu Sans"), 24)
    drawn = np.zeros((len(classes), 4, 1, side, side), dtype=np.uint8)
    for place, letter in enumerate(classes):
        for picture in range(4):
            image = Image.new("L", (side, side))
            ImageDraw.Draw(image).text((side / 2, side / 2), letter, fill=255, font=face, anchor="mm")
            image = image.rotate(float(random.normal(0, 12)))
            ink = np.asarray(image, dtype=float)
            noise = random.integers(0, 256, size=(side, side))
            drawn[place, picture, 0] = clearness * ink + (1 - clearness) * noise
    return drawn


_RESULT = make_result()
_ARRAYS, _METADATA = make_evidence()
_SUITE = make_suite()
_SUITE_PICTURES = make_suite_pictures(_SUITE)


@pytest.fixture
def result() -> dict[str, Any]:
    return copy.deepcopy(_RESULT)


@pytest.fixture
def evidence() -> dict[str, np.ndarray]:
    return dict(_ARRAYS)


@pytest.fixture
def metadata() -> dict[str, str]:
    return dict(_METADATA)


@pytest.fixture
def run_folder(tmp_path, result, evidence, metadata):
    (tmp_path / "result.json").write_text(json.dumps(result), encoding="utf-8")
    save_file(evidence, tmp_path / "evidence.safetensors", metadata=metadata)
    return tmp_path


@pytest.fixture
def result_of():
    return make_result


@pytest.fixture
def evidence_of():
    return make_evidence


@pytest.fixture
def suite() -> dict[str, Any]:
    return copy.deepcopy(_SUITE)


@pytest.fixture
def plane() -> dict[str, Any]:
    return make_plane()


@pytest.fixture
def suite_pictures() -> dict[str, np.ndarray]:
    return dict(_SUITE_PICTURES)


@pytest.fixture
def suite_folder(tmp_path, suite, suite_pictures):
    (tmp_path / "suite.json").write_text(json.dumps(suite), encoding="utf-8")
    save_file(suite_pictures, tmp_path / "suite-pictures.safetensors")
    return tmp_path
