"""The suite behind `patchmi defend`: one data set, defences at their strengths, attacks on each."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from patchmi.attacks import PatchMI
from patchmi.defences import ADAPTIVE_ATTACKS, DEFENCES, choose_defence, missing_package
from patchmi.networks import ARCHITECTURES, build_classifier
from patchmi.suite.checks import suite_faults
from patchmi.suite.tables import Origin, Suite, SuiteAttack, SuiteDefence, SuitePublic, SuiteTarget

ALWAYS = ("none", "early-stopping", "label-smoothing")
"""What every bench has: no defence, the fair line beside it, and the positive control."""
PLAIN = "plain"
"""The attack that knows of no defence."""
TEN_TIMES = 10


@dataclass(frozen=True)
class Bench:
    """What is to be defended, and how thoroughly it is looked at.

    Args:
        private: Labelled images to train on, as `patchmi audit --private` takes them.
        image_shape: Channels, height and width.
        architecture: A name in `ARCHITECTURES`.
        defences: Names in `DEFENCES`; `ALWAYS` are added. () is all that can be run.
        strength_count: Strengths of each defence, spread over its five.
        network_count: Networks that are trained for each, with seeds of their own.
        step_count: Batches of each training.
        judge_steps: Batches of each judge's.
        flips: Whether training may mirror images.
        validation_share: Share of the training images that choose among a training's moments.
        public: What the attackers have.
        public_count: At most so many.
        pretraining: Labelled images of other classes, for `tl-dmi`, which is left out of all without them.
        attack_step_count: Steps of the plain attack; None: its recipe's.
        adaptive: Which of `ADAPTIVE_ATTACKS` are run; () is all that some defence asks for.
        budget: Images that an attack may send to a black box.
        count_per_class: Reconstructions of each class.
    """

    private: str
    image_shape: tuple[int, int, int]
    architecture: str = "resnet10"
    defences: tuple[str, ...] = ()
    strength_count: int = 5
    network_count: int = 3
    step_count: int = 900
    judge_steps: int = 1500
    flips: bool = False
    validation_share: float = 0.1
    public: str = "strokes"
    public_count: int = 15_000
    pretraining: str | None = None
    attack_step_count: int | None = None
    adaptive: tuple[str, ...] = ()
    budget: int = 50_000
    count_per_class: int = 100


def defence_suite(bench: Bench, *, command: str = "patchmi defend") -> Suite:
    """The suite of a bench.

    Raises:
        ValueError: A defence or an attack is unknown, or lacks what it needs: one line.
    """
    left_out = left_out_of(bench)
    names = tuple(dict.fromkeys((*ALWAYS, *_chosen(bench, left_out))))
    common = SuiteTarget(
        private=bench.private,
        image_shape=bench.image_shape,
        architecture=bench.architecture,
        step_count=bench.step_count,
        judge_steps=bench.judge_steps,
        flips=bench.flips,
        validation_share=bench.validation_share,
        pretraining=bench.pretraining,
    )
    suite = Suite(
        title="What defences cost, and whether they hold",
        description=_description(bench, {} if bench.defences else left_out),
        targets={f"network-{seed}": replace(common, seed=seed) for seed in range(bench.network_count)},
        public={"public": SuitePublic(bench.public, count=bench.public_count)},
        attacks=_attacks(bench, names),
        defences={
            entry: listed for name in names for entry, listed in _strengths(name, bench.strength_count)
        },
        seeds=1,
        count_per_class=bench.count_per_class,
        origin=Origin(folder=str(Path.cwd()), command=command),
    )
    for fault in suite_faults(suite):
        raise ValueError(fault)
    return suite


def _chosen(bench: Bench, left_out: Mapping[str, str]) -> tuple[str, ...]:
    """The defences by name; of all, those that can be run."""
    for name in bench.defences:
        if name not in DEFENCES:
            raise ValueError(
                f"--defences {name}: there is none of this name; give all, or some of {', '.join(DEFENCES)}"
            )
        if name in left_out:
            raise ValueError(f"--defences {name}: {left_out[name]}")
    return bench.defences or tuple(name for name in DEFENCES if name not in left_out)


def left_out_of(bench: Bench) -> dict[str, str]:
    """Defences that cannot be run, by name, and what they lack."""
    reasons = {}
    for name, listed in DEFENCES.items():
        if bench.pretraining is None and listed.kind.learns_from_public:
            reasons[name] = "learns from labelled images of other classes first; give --pretraining"
        if (reason := missing_package(listed.kind)) is not None:
            reasons[name] = reason
        if bench.architecture in ARCHITECTURES:
            try:
                changed = choose_defence(name).named(bench.architecture)
                build_classifier(changed, class_count=2, channel_count=1)
            except ValueError as error:
                reasons[name] = str(error)
    return reasons


def _description(bench: Bench, left_out: Mapping[str, str]) -> str:
    """What the page begins with; it is handed on, and where things are kept is nobody's business."""
    called = bench.private.rstrip("/").rpartition("/")[2]
    lacking = "".join(f" Left out: {name} ({reason})." for name, reason in left_out.items())
    return f"Networks trained on {called}, defended or not, and attacks on them.{lacking}"


def _strengths(name: str, count: int) -> Iterable[tuple[str, SuiteDefence]]:
    """As many of a defence's strengths, evenly chosen; of one, where it starts."""
    listed = DEFENCES[name]
    own = listed.strengths
    if count == 1 or len(own) == 1:
        own = (listed.start,)
    elif count < len(own):
        own = tuple(own[place * (len(own) - 1) // (count - 1)] for place in range(count))
    for strength in own:
        yield (name if name == "none" else f"{name}_{strength:g}"), SuiteDefence(name, strength)


def _attacks(bench: Bench, names: tuple[str, ...]) -> dict[str, SuiteAttack]:
    """The plain attack on everything, each adaptive one on what asks for it and on the undefended."""
    for kind in bench.adaptive:
        if kind not in ADAPTIVE_ATTACKS:
            raise ValueError(
                f"--adaptive {kind}: there is none of this name; give some of {', '.join(ADAPTIVE_ATTACKS)}"
            )
    given = {} if bench.attack_step_count is None else {"step_count": bench.attack_step_count}
    attacks = {PLAIN: SuiteAttack("patch-mi", given)}
    for kind in bench.adaptive or tuple(ADAPTIVE_ATTACKS):
        asking = tuple(name for name in names if kind in DEFENCES[name].adaptive)
        if asking:
            against = tuple(dict.fromkeys((*ALWAYS, *asking)))
            attacks[kind] = replace(_adaptive(bench, kind, given), adaptive=kind, defences=against)
    return attacks


def _adaptive(bench: Bench, kind: str, given: dict[str, Any]) -> SuiteAttack:
    """One of `ADAPTIVE_ATTACKS`, with the plain attack's steps, but for the one that has ten times them."""
    if kind == "student":
        return SuiteAttack("patch-transfer", given, access="score", budget=bench.budget)
    side = bench.image_shape[1]
    step_count = PatchMI(**given).step_counts(bench.public_count, side)["step_count"]
    changes: dict[str, dict[str, Any]] = {
        "margin": {"identity_loss": "max_margin"},
        "logit": {"identity_loss": "logit"},
        "views": {"many_views": True},
        "no-batch-norm": {"batch_norm": False},
        "ten-times": {"step_count": TEN_TIMES * step_count},
    }
    return SuiteAttack("patch-mi", given | changes[kind])
