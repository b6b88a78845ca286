"""The arms that the attack is compared with: what would pass without having learnt from the target."""

import torch

from patchmi.audit.plan import Private
from patchmi.audit.scores import Arm
from patchmi.machine import seeded
from patchmi.types import Images, Logits

CONTROL_COUNT = 100
"""Images of each class in a control."""


def random_arm(class_count: int, image_shape: tuple[int, ...]) -> Arm:
    """Uniform noise in every pixel."""
    labels = torch.arange(class_count).repeat_interleave(CONTROL_COUNT)
    with seeded(0):
        return _arm(torch.rand(len(labels), *image_shape), labels)


def public_selected_arm(logits: Logits, public: Images) -> Arm:
    """For each class the public images that the target is surest of: selection without optimisation.

    Args:
        logits: What the target answers to them.
        public: All of the attacker's images.
    """
    count = min(CONTROL_COUNT, len(public))
    best = logits.softmax(dim=1).topk(count, dim=0).indices.T.flatten()
    return _arm(public[best], torch.arange(logits.shape[1]).repeat_interleave(count))


def permuted_arm(attacked: Arm) -> Arm:
    """The attack's own images, each class held against the next one's label: agreement by chance."""
    class_count = int(attacked.labels.max()) + 1
    return Arm(attacked.images, (attacked.labels + 1) % class_count, attacked.seeds)


def held_out_arm(private: Private) -> Arm:
    """Real images that neither target nor judges were trained on: the ceiling."""
    return _arm(private.held_out_images, private.held_out_labels)


def _arm(images: Images, labels: torch.Tensor) -> Arm:
    return Arm(images, labels, torch.zeros_like(labels))
