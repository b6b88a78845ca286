"""Students: small networks that learn the target from images the attacker can make, again and again.

What only the target believes, a student does not learn; pictures that must convince both keep the shapes and
lose the tricks. Students that stop learning are fooled like the target is, so these are refitted on the
generator's own images all along. After model augmentation by distilled networks (N.-B. Nguyen et al.,
"Re-thinking Model Inversion Attacks Against Deep Neural Networks", CVPR 2023, section 4.2).

Differs from the paper: students learn from public images of another kind and from the generator, not from
images of the target's kind, and never stop.
"""

from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from patchmi import losses, machine
from patchmi.attacks.base import descend
from patchmi.attacks.surrogate import Surrogate
from patchmi.networks import ARCHITECTURES
from patchmi.target import WhiteBox
from patchmi.types import Images, Labels


class Students:
    """The students of one target and their optimiser.

    Args:
        architectures: One student each, by name.
        width: Channels of their first layer.
        learning_rate: AdamW's.
        door: Access to the target.
    """

    def __init__(
        self, architectures: tuple[str, ...], *, width: int, learning_rate: float, door: WhiteBox | Surrogate
    ) -> None:
        self.door = door
        self.networks = machine.place(
            nn.ModuleList(
                ARCHITECTURES[name](
                    class_count=door.class_count, channel_count=door.image_shape[0], width=width
                )
                for name in architectures
            )
        )
        self.optimiser = (
            torch.optim.AdamW(self.networks.parameters(), learning_rate) if architectures else None
        )

    def learn(self, images: Images) -> None:
        """One step: answer as the target does to a batch of images in [0, 1]."""
        if self.optimiser is None:
            return
        with torch.no_grad():
            answers = self.door.logits(images).float().softmax(dim=1)
        self.networks.train().requires_grad_(True)
        loss = torch.stack(
            [F.cross_entropy(student(images).float(), answers) for student in self.networks]
        ).sum()
        descend(self.optimiser, loss)
        self.networks.eval().requires_grad_(False)

    def identity_loss(self, views: Images, labels: Labels) -> losses.Scalar:
        """The mean over students of -E[log S(y | v(x))]."""
        answers = [losses.identity_loss(student(views), labels) for student in self.networks]
        return torch.stack(answers).mean()

    def state(self) -> dict[str, Any]:
        """What must be kept to go on."""
        optimiser = self.optimiser.state_dict() if self.optimiser else None
        return {"networks": self.networks.state_dict(), "optimiser": optimiser}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.networks.load_state_dict(state["networks"])
        self.networks.eval().requires_grad_(False)
        if self.optimiser:
            self.optimiser.load_state_dict(state["optimiser"])
