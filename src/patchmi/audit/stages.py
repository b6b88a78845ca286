"""The stages of an audit that compute for long: each leaves a file in the run folder and is not run twice."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any, Literal

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchmi import machine
from patchmi.attacks import AbstractAttack, merge_snapshots
from patchmi.audit.plan import Judge, Plan, Private
from patchmi.networks import ARCHITECTURES
from patchmi.runs import Cache, Journal, RunFolder
from patchmi.target import (
    Account,
    BlackBox,
    Queries,
    Target,
    Training,
    WhiteBox,
    open_black_box,
    train_classifier,
)
from patchmi.types import (
    Bytes,
    Images,
    Observer,
    Progress,
    Reconstructions,
    Snapshot,
    silent,
    unobserved,
)

RECONSTRUCTIONS = "reconstructions.safetensors"
"""The contract's file: `images` uint8 N×C×H×W, `labels` and `seeds` int64 N."""


@dataclass(frozen=True)
class Attacked:
    """What one run of an attack gave, and what it cost."""

    reconstructions: Reconstructions
    seconds: float
    step_count: int
    queries: Queries
    account: Account | None = None
    """Of a black box: what it was asked, and for what."""


def fit_target(
    run: RunFolder,
    private: Private,
    *,
    architecture: str,
    training: Training,
    seed: int,
    progress: Progress = silent,
    role: Literal["target", "reference"] = "target",
) -> Target:
    """Train a target, or a model known to leak, on the private images, or take up the run folder's."""
    model = _fit(
        run, role, private, architecture=architecture, training=training, seed=seed, progress=progress
    )
    shape = private.train_images.shape
    return Target(
        model,
        class_names=private.class_names,
        image_shape=(shape[1], shape[2], shape[3]),
        name=f"{architecture} on {private.description}",
        architecture=architecture,
    )


def fit_judge(
    run: RunFolder,
    private: Private,
    *,
    architecture: str,
    training: Training,
    seed: int,
    progress: Progress = silent,
) -> Judge:
    """Train a judge on the private training images, or take up the one in the run folder."""
    model = _fit(
        run,
        f"judges/{architecture}",
        private,
        architecture=architecture,
        training=training,
        seed=seed,
        progress=progress,
    )
    return Judge(architecture, architecture, model, f"{private.description}, training split")


def _fit(
    run: RunFolder,
    name: str,
    private: Private,
    *,
    architecture: str,
    training: Training,
    seed: int,
    progress: Progress,
) -> torch.nn.Module:
    file = f"{name}.safetensors"
    with machine.seeded(seed):
        model = machine.place(
            ARCHITECTURES[architecture](
                class_count=len(private.class_names), channel_count=private.train_images.shape[1]
            )
        )
    if not run.has(file):
        train_classifier(
            model,
            images=private.train_images,
            labels=private.train_labels,
            training=training,
            seed=seed,
            progress=progress,
            description=f"Training {name}",
        )
        run.write_tensors(file, model.state_dict(), {"architecture": f"patchmi:{architecture}"})
    # Read even if just written, into the layout it was trained in: a resumed run must sum in the same order.
    tensors, _ = run.read_tensors(file)
    model.load_state_dict(tensors)
    return model.cpu().eval()


def attack_target(
    run: RunFolder, target: Target, plan: Plan, *, progress: Progress, observe: Observer = unobserved
) -> list[Attacked]:
    """Run the attack once for each seed, and join what it rebuilt in `reconstructions.safetensors`."""
    done = [
        _attack(
            run,
            f"attack/seed-{seed}",
            plan.attack,
            target,
            plan,
            seed=seed,
            progress=progress,
            observe=observe,
        )
        for seed in plan.seeds
    ]
    if not run.has(RECONSTRUCTIONS):
        tensors = {
            "images": torch.cat([to_bytes(one.reconstructions.images) for one in done]),
            "labels": torch.cat([one.reconstructions.labels for one in done]),
            "seeds": torch.cat([one.reconstructions.seeds for one in done]),
        }
        write_reconstructions(run, tensors, target.class_names)
    return done


def join_runs(run: RunFolder, names: Sequence[str], name: str) -> None:
    """Join runs of one seed that each rebuilt some of the classes, as if one had rebuilt them all.

    Args:
        run: Holds them.
        names: Theirs, as `attack/seed-0`, without the file's ending.
        name: Of the run to write.

    Raises:
        ValueError: If two of them rebuilt the same class, or took snapshots at other steps.
    """
    parts = [_read(run, f"{part}.safetensors") for part in names]
    if len({tuple(one.step for one in part.reconstructions.snapshots) for part in parts}) > 1:
        raise ValueError(
            f"{', '.join(names)}: took snapshots at other steps; remove their cells, and run again"
        )
    classes = torch.cat([part.reconstructions.labels.unique() for part in parts])
    if len(classes.unique()) < len(classes):
        raise ValueError(
            f"{', '.join(names)}: two of them rebuilt the same class, as machines of other kinds may deal "
            "classes otherwise; remove their cells, and run again on one kind"
        )
    labels = torch.cat([part.reconstructions.labels for part in parts])
    order = labels.argsort(stable=True)
    unselected = [
        part.reconstructions.unselected for part in parts if part.reconstructions.unselected is not None
    ]
    made = Reconstructions(
        torch.cat([part.reconstructions.images for part in parts])[order],
        labels[order],
        torch.cat([part.reconstructions.seeds for part in parts])[order],
        merge_snapshots(_in_bytes(part.reconstructions.snapshots) for part in parts),
        tuple(dict.fromkeys(note for part in parts for note in part.reconstructions.notes)),
        torch.cat(unselected)[order] if unselected else None,
    )
    queries = Queries(
        forward=sum(part.queries.forward for part in parts),
        backward=sum(part.queries.backward for part in parts),
        images=sum(part.queries.images for part in parts),
    )
    _write(run, f"{name}.safetensors", made, queries)


def _in_bytes(snapshots: Sequence[Snapshot]) -> dict[str, list[dict[str, Any]]]:
    """Snapshots as an attack keeps them while it runs."""
    return {"snapshots": [vars(one) | {"images": to_bytes(one.images)} for one in snapshots]}


def write_reconstructions(
    run: RunFolder, tensors: Mapping[str, Tensor], class_names: tuple[str, ...]
) -> None:
    """Write the contract's file from `images`, `labels` and `seeds`."""
    metadata = {"class_names": json.dumps(class_names), "patchmi_version": version("patchmi")}
    run.write_tensors(RECONSTRUCTIONS, tensors, metadata)


def attack_reference(run: RunFolder, plan: Plan, *, progress: Progress) -> list[Attacked]:
    """The positive control: the same attack, once for each seed, on the model that is known to leak."""
    assert plan.reference is not None
    return [
        _attack(
            run, f"reference/seed-{seed}", plan.attack, plan.reference, plan, seed=seed, progress=progress
        )
        for seed in plan.seeds
    ]


def draw_without_target(run: RunFolder, target: Target, plan: Plan, *, progress: Progress) -> Attacked:
    """The control: what the attack's prior alone draws, for the first seed."""
    attack = plan.attack.without_target()
    return _attack(run, "controls/untrained", attack, target, plan, seed=plan.seeds[0], progress=progress)


def _attack(
    run: RunFolder,
    name: str,
    attack: AbstractAttack,
    target: Target,
    plan: Plan,
    *,
    seed: int,
    progress: Progress,
    observe: Observer = unobserved,
) -> Attacked:
    file = f"{name}.safetensors"

    def observe_this(step: int, losses: Mapping[str, float]) -> None:
        observe(step, {f"{name}/{loss}": value for loss, value in losses.items()})

    if not run.has(file):
        door = open_door(target, plan, record=Journal(run.path(f"{name}.queries")))
        checkpoint = run.checkpoint(name.replace("/", "-"), every_seconds=plan.checkpoint_seconds)
        made = attack(
            door,
            plan.public.images,
            count_per_class=plan.count_per_class,
            seed=seed,
            checkpoint=checkpoint,
            cache=run.cache() if plan.cache is None else Cache(plan.cache),
            progress=progress,
            observe=unobserved if observe is unobserved else observe_this,
        )
        if isinstance(door, WhiteBox):
            _write(run, file, made, door.queries)
        else:
            queries = Queries(forward=door.account.calls, images=door.sent_count)
            _write(run, file, made, queries, door.account)
        checkpoint.clear()
    return _read(run, file)


def open_door(target: Target, plan: Plan, *, record: Journal | None = None) -> WhiteBox | BlackBox:
    """The door that the plan grants, and no wider one.

    Raises:
        AccessDenied: The target grants less.
    """
    grant = plan.grant
    if grant.access == "white-box":
        return WhiteBox(target)
    return open_black_box(target, access=grant.access, budget=grant.budget, mode=grant.mode, record=record)


def _write(
    run: RunFolder, file: str, made: Reconstructions, queries: Queries, account: Account | None = None
) -> None:
    tensors = {"images": to_bytes(made.images), "labels": made.labels, "seeds": made.seeds}
    if made.unselected is not None:
        tensors["unselected"] = to_bytes(made.unselected)
    for number, snapshot in enumerate(made.snapshots):
        tensors[f"snapshot-{number}-images"] = to_bytes(snapshot.images)
        tensors[f"snapshot-{number}-labels"] = snapshot.labels
    # Times differ from run to run: they stand in a file of their own, which no digest in the result covers.
    run.write_json(_times_of(file), [snapshot.seconds for snapshot in made.snapshots])
    run.write_tensors(
        file,
        tensors,
        {
            "steps": json.dumps([snapshot.step for snapshot in made.snapshots]),
            "queries": json.dumps(asdict(queries)),
            "account": json.dumps(None if account is None else asdict(account)),
            "asked": json.dumps([snapshot.queries for snapshot in made.snapshots]),
            "notes": json.dumps(made.notes),
        },
    )


def _read(run: RunFolder, file: str) -> Attacked:
    tensors, metadata = run.read_tensors(file)
    steps, asked = json.loads(metadata["steps"]), json.loads(metadata["asked"])
    times, account = run.read_json(_times_of(file)), json.loads(metadata["account"])
    snapshots = tuple(
        Snapshot(
            step,
            seconds,
            to_unit_range(tensors[f"snapshot-{number}-images"]),
            tensors[f"snapshot-{number}-labels"],
            queries,
        )
        for number, (step, seconds, queries) in enumerate(zip(steps, times, asked, strict=True))
    )
    made = Reconstructions(
        to_unit_range(tensors["images"]),
        tensors["labels"],
        tensors["seeds"],
        snapshots,
        tuple(json.loads(metadata["notes"])),
        to_unit_range(tensors["unselected"]) if "unselected" in tensors else None,
    )
    return Attacked(
        made,
        seconds=snapshots[-1].seconds if snapshots else 0.0,
        step_count=snapshots[-1].step if snapshots else 0,
        queries=Queries(**json.loads(metadata["queries"])),
        account=None if account is None else Account(**account),
    )


def _times_of(file: str) -> str:
    return file.replace(".safetensors", ".times.json")


def to_bytes(
    images: Float[Tensor, "*n channels height width"],
) -> UInt8[Tensor, "*n channels height width"]:
    """Images in [0, 1] as files hold them."""
    return (images * 255).round().byte()


def to_unit_range(images: Bytes) -> Images:
    """Images of a file in [0, 1]."""
    return images.float() / 255
