"""The pictures that a report shows, chosen by rule and not by eye."""

import json
from collections.abc import Mapping

import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from patchmi.audit.plan import Private
from patchmi.audit.scores import Arm
from patchmi.audit.stages import to_bytes
from patchmi.types import Images, Snapshot

RANKS = (0, 25, 50, 75, 100)
"""Percentiles of the judges' mean confidence at which reconstructions are shown, the best first."""
SAMPLE_COUNT = 4
"""Pictures of each class from the arms that are not ranked."""

Strips = UInt8[Tensor, "classes shown channels height width"]


def gather_evidence(
    arms: Mapping[str, Arm],
    *,
    order: Float[Tensor, " pictures"],
    class_count: int,
    public: Images | None,
    private: Private | None,
    snapshots: tuple[Snapshot, ...],
) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Arrays and metadata of `evidence.safetensors`.

    Args:
        arms: `attack`, and what there is of `untrained_attack` and `random`.
        order: A value for each of the attack's pictures: in each class the highest comes first.
        class_count: Number of classes.
        public: The attacker's images.
        private: For held-out images, if they may be shown.
        snapshots: Of the first seed.
    """
    shown = _at_ranks(arms["attack"], order, class_count)
    arrays = {"reconstructions": to_bytes(shown)}
    if public is not None:
        nearest = to_bytes(_nearest(shown.flatten(0, 1), public))
        arrays["nearest_public"] = nearest.unflatten(0, shown.shape[:2])
    for name, arm in (("untrained", "untrained_attack"), ("noise", "random")):
        if arm in arms:
            arrays[name] = _first(arms[arm], class_count)
    if private is not None and private.may_be_shown:
        held_out = Arm(private.held_out_images, private.held_out_labels, private.held_out_labels)
        arrays["held_out"] = _first(held_out, class_count)
    metadata = {"ranks": json.dumps(RANKS)}
    if snapshots:
        first = [
            torch.stack([snapshot.images[snapshot.labels == label][0] for label in range(class_count)])
            for snapshot in snapshots
        ]
        arrays["history"] = to_bytes(torch.stack(first))
        metadata["history_steps"] = json.dumps([snapshot.step for snapshot in snapshots])
    return {name: array.contiguous() for name, array in arrays.items()}, metadata


def _at_ranks(
    arm: Arm, confidence: Float[Tensor, " n"], class_count: int
) -> Float[Tensor, "classes ranks channels height width"]:
    rows = []
    for label in range(class_count):
        members = (arm.labels == label).nonzero()[:, 0]
        order = members[confidence[members].argsort(descending=True, stable=True)]
        rows.append(arm.images[order[[round(rank / 100 * (len(order) - 1)) for rank in RANKS]]])
    return torch.stack(rows)


def _nearest(images: Images, public: Float[Tensor, "public channels height width"]) -> Images:
    """For each image the public one at the least Euclidean distance of pixels."""
    distance = torch.cdist(images.flatten(1), public.flatten(1))
    return public[distance.argmin(dim=1)]


def _first(arm: Arm, class_count: int) -> Strips:
    return to_bytes(
        torch.stack([arm.images[arm.labels == label][:SAMPLE_COUNT] for label in range(class_count)])
    )
