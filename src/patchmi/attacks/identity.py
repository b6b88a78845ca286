"""How strongly images are told which class to show: by the target, and by students distilled from it.

Two additions to any attack that searches images or latents, both of N.-B. Nguyen et al., "Re-thinking Model
Inversion Attacks Against Deep Neural Networks" (LOMMA), CVPR 2023: the logit loss with its regulariser, and
model augmentation.

Differs from the paper: students learn for a number of batches instead of 20 epochs, and are narrow.
"""

from dataclasses import asdict, dataclass
from typing import Any

import torch

from patchmi import losses, machine
from patchmi.attacks.students import Students
from patchmi.target import Queries, WhiteBox
from patchmi.types import Images, Labels, Progress

STUDENTS = ("resnet10", "vgg6", "lenet")
"""Architectures of the students, in the order in which they are taken."""
STUDENT_WIDTH = 12
LOOK_SIZE = 256
"""Public images a question when their mean features are taken."""


@dataclass(frozen=True)
class IdentityTerm:
    """The term by which an attack tells an image its class.

    Args:
        loss: `cross_entropy`; `max_margin` to the best other class; `logit`, LOMMA's.
        feature_weight: Weight of the distance from the public images' mean features, LOMMA's regulariser (1).
        student_count: Students that have a word beside the target, LOMMA's model augmentation (3).
        student_step_count: Batches of public images that they learn from.

    Raises:
        ValueError: If a number is out of range.
    """

    loss: losses.IdentityLoss = "cross_entropy"
    feature_weight: float = 0.0
    student_count: int = 0
    student_step_count: int = 600

    def __post_init__(self) -> None:
        if self.loss not in losses.IDENTITY_LOSSES:
            raise ValueError(f"loss {self.loss}: give one of {', '.join(losses.IDENTITY_LOSSES)}")
        if not 0 <= self.student_count <= len(STUDENTS):
            raise ValueError(f"student_count {self.student_count}: give 0 to {len(STUDENTS)}")
        if self.student_step_count < 1 or self.feature_weight < 0:
            raise ValueError("student_step_count: give 1 or more; feature_weight: 0 or more")


class TargetsWord:
    """The target's word on images, and its students'.

    Args:
        term: What is asked of them.
        door: Access to the target.
    """

    def __init__(self, term: IdentityTerm, door: WhiteBox) -> None:
        self.term, self.door = term, door
        self.centre = torch.empty(0)
        self.students = Students(
            STUDENTS[: term.student_count], width=STUDENT_WIDTH, learning_rate=1e-3, door=door
        )

    def prepare(self, public: Images, progress: Progress, *, batch_size: int = 64) -> None:
        """Let the students learn from public images in [0, 1], and look at the features of these."""
        if self.term.feature_weight > 0:
            means = []
            for start in progress(range(0, len(public), LOOK_SIZE), "Features of the public images"):
                with torch.no_grad():
                    batch = public[start : start + LOOK_SIZE].to(machine.device())
                    means.append(self.door.logits_and_features(batch)[1].float().sum(dim=0))
            self.centre = torch.stack(means).sum(dim=0) / len(public)
        if self.term.student_count > 0:
            for _ in progress(range(self.term.student_step_count), "Students learn the target"):
                index = torch.randint(len(public), (batch_size,))
                self.students.learn(public[index].to(machine.device()))

    def loss(self, images: Images, labels: Labels) -> losses.Scalar:
        """The term for images in [0, 1]: the mean over the target and its students."""
        loss_of = losses.IDENTITY_LOSSES[self.term.loss]
        if self.term.feature_weight > 0:
            logits, features = self.door.logits_and_features(images)
        else:
            logits, features = self.door.logits(images), None
        words = [loss_of(logits, labels)]
        words += [loss_of(student(images), labels) for student in self.students.networks]
        word = torch.stack(words).mean()
        if features is not None:
            word = word + self.term.feature_weight * losses.feature_loss(features, self.centre)
        return word

    def state(self) -> dict[str, Any]:
        """What must be kept to go on, with the count of questions asked so far."""
        return {
            "students": self.students.state(),
            "centre": self.centre,
            "queries": asdict(self.door.queries),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.students.restore(state["students"])
        self.centre = state["centre"].to(machine.device())
        self.door.queries = Queries(**state["queries"])
