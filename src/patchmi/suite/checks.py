"""What is wrong with a suite although its types are right: names, numbers, and what refers to what."""

import re
from collections.abc import Iterator
from typing import Any

from patchmi.audit.scores import SCORES
from patchmi.defences import ADAPTIVE_ATTACKS, DEFENCES, missing_package
from patchmi.networks import ARCHITECTURES, build_classifier
from patchmi.suite.tables import (
    DATA,
    UNUSED,
    Curve,
    Published,
    Suite,
    SuiteAttack,
    SuiteDefence,
    SuiteTarget,
)

SHOWN_SCORES = (*SCORES, "disjoint_top1")
"""Scores that a page has a column for."""
_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


def suite_faults(suite: Suite) -> Iterator[str]:
    """Each fault in one line, which begins with the key."""
    yield from _name_faults(suite)
    yield from _small_numbers(suite, "", ("seeds", "threads"))
    if suite.count_per_class < 4:
        yield f"count_per_class = {suite.count_per_class}: give 4 or more, which the measures need"
    if suite.memory_gb <= 0 or suite.gpus < 0 or suite.checkpoint_seconds < 0:
        yield "memory_gb must be above 0, gpus and checkpoint_seconds 0 or above"
    for name, target in suite.targets.items():
        yield from _target_faults(target, suite, f"targets.{name}")
    for name, public in suite.public.items():
        yield from _small_numbers(public, f"public.{name}.", ("count",))
        yield from _unreachable(public.source, suite, f"public.{name}.source")
        yield from _nothing_unused(public.source, suite, f"public.{name}.source")
    for name, attack in suite.attacks.items():
        yield from _attack_faults(attack, suite, f"attacks.{name}")
    for name, defence in suite.defences.items():
        yield from _defence_faults(defence, suite, f"defences.{name}")
    for place, entry in enumerate(suite.published):
        yield from _published_faults(entry, suite, f"published[{place}]")
    for place, curve in enumerate(suite.curves):
        yield from _curve_faults(curve, suite, f"curves[{place}]")


def _name_faults(suite: Suite) -> Iterator[str]:
    for group in ("targets", "public", "attacks", "defences"):
        if not getattr(suite, group):
            yield f"{group}: is empty; give one or more, as [{group}.NAME]"
        for name in getattr(suite, group):
            if not _NAME.fullmatch(name):
                yield f"{group}: {name!r} is no name; use letters, digits, '.', '_' and '-'"


def _defence_faults(defence: SuiteDefence, suite: Suite, where: str) -> Iterator[str]:
    try:
        made = defence.made()
    except ValueError as error:
        yield f"{where}: {error}"
        return
    if not defence.changes_training():
        return
    if (reason := missing_package(type(made))) is not None:
        yield f"{where}: {reason}"
    for name, target in suite.targets.items():
        if target.model is not None:
            yield (
                f"{where}: targets.{name} is a finished model, which can be defended in its answers only; "
                "give it an architecture to train, or leave this defence out"
            )
        elif made.learns_from_public and target.pretraining is None:
            yield (
                f"{where}: learns from labelled images of other classes first; give targets.{name} a "
                "`pretraining`, or leave this defence out"
            )
        elif target.architecture in ARCHITECTURES:
            try:
                build_classifier(made.named(target.architecture), class_count=2, channel_count=1)
            except ValueError as error:
                yield f"{where}, on targets.{name}: {error}"


def _small_numbers(holder: Any, prefix: str, names: tuple[str, ...]) -> Iterator[str]:
    for name in names:
        value = getattr(holder, name)
        if value is not None and value < 1:
            yield f"{prefix}{name} = {value}: give 1 or more"


def _unreachable(
    source: str, suite: Suite, where: str, *, other_remedy: str = "a `hub` beside it"
) -> Iterator[str]:
    if source.startswith(DATA) and suite.origin.data is None:
        yield f"{where} = {source!r}: give --data FOLDER, or {other_remedy}"


def _nothing_unused(source: str, suite: Suite, where: str) -> Iterator[str]:
    if not source.startswith(UNUSED):
        return
    name = source.removeprefix(UNUSED)
    yield from _unknown((name,), suite.targets, where, "targets")
    target = suite.targets.get(name)
    if target is not None and (target.model is not None or target.private_count is None):
        yield f"{where}: targets.{name} leaves no images unused; give it a private_count, and no model"


def _target_faults(target: SuiteTarget, suite: Suite, where: str) -> Iterator[str]:
    yield from _unreachable(target.private, suite, f"{where}.private")
    yield from _small_numbers(
        target, f"{where}.", ("class_count", "private_count", "width", "step_count", "judge_steps")
    )
    yield from _split_faults(target, suite, where)
    if target.pretraining is not None:
        yield from _unreachable(
            target.pretraining, suite, f"{where}.pretraining", other_remedy="a path, or hub:OWNER/NAME"
        )
    if target.image_shape is not None and min(target.image_shape) < 1:
        yield f"{where}.image_shape: give channels, height and width, each 1 or more"
    if target.model is not None:
        if target.disjoint_share:
            yield f"{where}.disjoint_share: a finished model was trained on all of them; leave it out"
        if target.class_count is not None:
            yield f"{where}.class_count: a finished model has its own classes; leave it out"
        if target.width is not None or target.flips or target.seed or target.validation_share:
            yield (
                f"{where}: width, flips, seed and validation_share belong to a target that is trained, not "
                "to a finished model"
            )
        return
    if target.architecture not in ARCHITECTURES:
        given = "is missing" if target.architecture is None else f"= {target.architecture!r} is none of ours"
        yield f"{where}.architecture {given}; give one of {', '.join(ARCHITECTURES)}, or a `model`"
    if target.image_shape is None:
        yield f"{where}.image_shape is missing; give channels, height and width, as [1, 32, 32]"
    if target.class_names or target.mean or target.std:
        yield f"{where}: class_names, mean and std belong to a finished `model`"


def _split_faults(target: SuiteTarget, suite: Suite, where: str) -> Iterator[str]:
    shares = (target.disjoint_share, target.validation_share)
    if not all(0 <= share < 1 for share in shares) or not 0 < target.held_out_share < 1:
        yield (
            f"{where}: disjoint_share, validation_share and held_out_share are shares, below 1 and not "
            "negative"
        )
    if target.disjoint is not None:
        yield from _unreachable(
            target.disjoint, suite, f"{where}.disjoint", other_remedy="a path, or hub:OWNER/NAME"
        )
        if target.disjoint_share:
            yield f"{where}: disjoint and disjoint_share each make the one disjoint judge; leave one out"


def _attack_faults(attack: SuiteAttack, suite: Suite, where: str) -> Iterator[str]:
    try:
        attack.made().check_access(attack.grant().access)
    except ValueError as error:
        yield f"{where}: {error}"
    yield from _unknown(attack.publics, suite.public, f"{where}.publics", "public")
    yield from _unknown(attack.defences, DEFENCES, f"{where}.defences", "defences")
    if attack.adaptive is not None:
        yield from _unknown((attack.adaptive,), ADAPTIVE_ATTACKS, f"{where}.adaptive", "adaptive attacks")


def _published_faults(entry: Published, suite: Suite, where: str) -> Iterator[str]:
    yield from _unknown((entry.attack,), suite.attacks, f"{where}.attack", "attacks")
    yield from _unknown((entry.target,), suite.targets, f"{where}.target", "targets")
    if entry.public is not None:
        yield from _unknown((entry.public,), suite.public, f"{where}.public", "public")
    yield from _unknown(entry.scores, SHOWN_SCORES, where, "scores")
    for name, value in entry.scores.items():
        if value < 0 or (value > 1 and name not in ("density", "frechet_distance")):
            yield f"{where}.{name} = {value:g}: give a share from 0 to 1"


def _curve_faults(curve: Curve, suite: Suite, where: str) -> Iterator[str]:
    yield from _unknown(curve.scores, SHOWN_SCORES, f"{where}.scores", "scores")
    yield from _unknown(curve.attacks, suite.attacks, f"{where}.attacks", "attacks")
    for name in curve.attacks:
        if name in suite.attacks and suite.attacks[name].number(curve.along) is None:
            yield f"{where}: attacks.{name} has no number for {curve.along}; set it there"


def _unknown(names: Any, known: Any, where: str, group: str) -> Iterator[str]:
    for name in names:
        if name not in known:
            yield f"{where}: there is no {name!r} among {group}: {', '.join(known)}"
