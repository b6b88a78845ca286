"""Students in the place of a target that only answers: what a white-box attack asks, they answer for free.

They learn from the images that were sent and what came back, and are refitted as more are. After knowledge
transfer for label-only inversion: N.-B. Nguyen et al., "Label-Only Model Inversion Attacks via Knowledge
Transfer" (LOKT), NeurIPS 2023.

Differs from the paper: small networks of different kinds instead of three DenseNets; in a lesson every stage
of the attack has its share, and in it every class that was answered, however rarely; the images are of
another kind than the private ones.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from patchmi import machine
from patchmi.attacks.base import descend, to_bytes
from patchmi.losses import Moments
from patchmi.networks import ARCHITECTURES
from patchmi.target import BlackBox, Queries, answer_of
from patchmi.types import Images, Labels, Logits, Progress
from patchmi.views import Views

BATCH_SIZE = 128


class Surrogate:
    """Students of one black box, and all that it has answered so far.

    Args:
        door: Access to the target.
        architectures: One student each, by name.
        width: Channels of their first layer.
        learning_rate: AdamW's.
        views: How an image is varied before a student sees it; its answer is taken to stay.
    """

    def __init__(
        self,
        door: BlackBox,
        *,
        architectures: tuple[str, ...],
        width: int,
        learning_rate: float,
        views: Views,
    ) -> None:
        self.door, self.views, self.learning_rate = door, views, learning_rate
        self.class_count, self.image_shape = door.class_count, door.image_shape
        self.queries = Queries()  # what the generator asks of students costs nothing
        self.networks = machine.place(
            nn.ModuleList(
                ARCHITECTURES[name](
                    class_count=door.class_count, channel_count=door.image_shape[0], width=width
                )
                for name in architectures
            )
        )
        self.networks.eval().requires_grad_(False)
        self.optimiser = torch.optim.AdamW(self.networks.parameters(), learning_rate)
        self.images = torch.empty(0, *door.image_shape, dtype=torch.uint8)
        self.answers = torch.empty(0, door.class_count)
        self.stage_names: list[str] = []
        """What images were sent for, in the order of the first of each."""
        self.stages = torch.empty(0, dtype=torch.long)
        """Of each image, the place of its stage among these."""

    def ask(self, images: Images, *, stage: str) -> None:
        """Send images in [0, 1] to the target, as far as its budget goes, and keep what it answers."""
        pixels = to_bytes(images)[: self.door.left]
        self.images = torch.cat([self.images, pixels])
        self.answers = torch.cat([self.answers, answer_of(self.door, pixels, stage=stage)])
        if stage not in self.stage_names:
            self.stage_names.append(stage)
        number = torch.full((len(pixels),), self.stage_names.index(stage))
        self.stages = torch.cat([self.stages, number])

    def fit(self, step_count: int, progress: Progress, description: str) -> None:
        """Learn all answers anew for so many batches, ever more slowly."""
        for step in progress(range(step_count), description):
            for group in self.optimiser.param_groups:
                group["lr"] = self.learning_rate * (1 - 0.9 * step / step_count)
            self.learn()

    def learn(self) -> None:
        """One step: answer as the target did to views of images, every stage and class alike."""
        shares = even_shares(self.answers.argmax(dim=1), self.stages)
        index = torch.multinomial(shares, BATCH_SIZE, replacement=True)
        views = self.views.vary(self.images[index].to(machine.device()).float() / 255)
        answers = self.answers[index].to(machine.device())
        self.networks.train().requires_grad_(True)
        loss = torch.stack([F.cross_entropy(student(views).float(), answers) for student in self.networks])
        descend(self.optimiser, loss.sum())
        self.networks.eval().requires_grad_(False)

    def logits(self, images: Images) -> Logits:
        """The students' word together: the mean of their log-probabilities."""
        return torch.stack([student(images).float().log_softmax(dim=1) for student in self.networks]).mean(0)

    def logits_and_moments(self, images: Images, *, wanted: bool = True) -> tuple[Logits, list[Moments]]:
        """Logits, and no moments: students remember the images that were sent, not the private ones."""
        del wanted
        return self.logits(images), []

    def logits_and_image_moments(self, images: Images) -> tuple[Logits, list[Moments]]:
        """Logits, and no moments."""
        return self.logits(images), []

    @torch.no_grad()
    def disagreement(self, images: Images) -> Float[Tensor, " n"]:
        """How far the students' answers to images in [0, 1] lie apart: their Jensen-Shannon divergence."""
        each = torch.stack([student(images).float().log_softmax(dim=1) for student in self.networks])
        mean = each.exp().mean(dim=0)
        entropy = -(mean * mean.clamp_min(1e-9).log()).sum(dim=1)
        return entropy + (each.exp() * each).sum(dim=2).mean(dim=0)

    def state(self) -> dict[str, Any]:
        """What must be kept to go on; questions and answers too."""
        return {
            "networks": self.networks.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "images": self.images,
            "answers": self.answers,
            "stage_names": self.stage_names,
            "stages": self.stages,
            "door": self.door.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.networks.load_state_dict(state["networks"])
        self.networks.eval().requires_grad_(False)
        self.optimiser.load_state_dict(state["optimiser"])
        self.images, self.answers = state["images"].cpu(), state["answers"].cpu()
        self.stage_names, self.stages = state["stage_names"], state["stages"].cpu()
        self.door.restore(state["door"])


def even_shares(labels: Labels, stages: Labels) -> Float[Tensor, " n"]:
    """Weights of images by which every stage is as likely as another, and in a stage every class it has.

    Args:
        labels: What the target took them for.
        stages: The number of the stage that each was sent in.
    """
    shape = (int(stages.max()) + 1, int(labels.max()) + 1)
    counts = (stages * shape[1] + labels).bincount(minlength=shape[0] * shape[1]).view(shape)
    class_counts = (counts > 0).sum(dim=1)
    return 1 / (shape[0] * class_counts[stages] * counts[stages, labels]).float()
