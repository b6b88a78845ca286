"""What the training of one Patch-MI generator is made of, and what must be kept to go on with it."""

import dataclasses
import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchmi import machine
from patchmi.attacks.patch_mi_recipes import Recipe
from patchmi.attacks.students import Students
from patchmi.networks import CodeClassifier, CodeGenerator, ConditionalGenerator, PatchDiscriminator
from patchmi.target import Queries, WhiteBox
from patchmi.types import Bytes, Images, Labels, Latents

SNAPSHOT_COUNT = 20
"""Images of each class in a snapshot."""


class Game:
    """What the training of one generator is made of, and what must be kept to go on with it."""

    def __init__(self, recipe: Recipe, door: WhiteBox, classes: list[int]) -> None:
        channel_count, image_size, _ = door.image_shape
        self.recipe, self.door, self.classes = recipe, door, classes
        self.views = recipe.views(image_size)
        self.public_views = recipe.public_views(image_size) if recipe.public_views else nn.Identity()
        if recipe.is_conditional:
            generator = ConditionalGenerator(
                class_count=door.class_count,
                channel_count=channel_count,
                image_size=image_size,
                width=recipe.generator_width,
            )
        else:
            generator = CodeGenerator(
                code_count=recipe.code_count,
                channel_count=channel_count,
                image_size=image_size,
                width=recipe.generator_width,
                level_count=recipe.generator_levels,
            )
        self.generator = machine.place(generator)
        self.discriminators = machine.place(
            nn.ModuleList(
                PatchDiscriminator(channel_count=channel_count, **dataclasses.asdict(scale))
                for scale in recipe.scales
            )
        )
        self.code_classifier = machine.place(
            CodeClassifier(channel_count=channel_count, code_count=recipe.code_count, image_size=image_size)
        )
        adam = partial(torch.optim.Adam, lr=recipe.learning_rate, betas=(0.5, 0.999))
        self.generator_optimiser = adam([*self.generator.parameters(), *self.code_classifier.parameters()])
        self.discriminator_optimiser = adam(self.discriminators.parameters())
        self.students = Students(recipe.students, width=recipe.student_width, learning_rate=2e-3, door=door)
        self.snapshot_latents = self.draw_noise(SNAPSHOT_COUNT * len(classes))
        self.snapshots: list[dict[str, Any]] = []
        self.step = 0
        self.seconds = 0.0

    def step_count(self, public_count: int) -> int:
        """Steps of this generator: as the recipe says, or so many passes over the public images."""
        return self.recipe.step_count or self.recipe.epoch_count * math.ceil(
            public_count / self.recipe.batch_size
        )

    def draw_public(self, public: Images) -> Float[Tensor, "batch channels height width"]:
        """A batch of public images in [-1, 1]."""
        index = torch.randint(len(public), (self.recipe.batch_size,))
        return self.public_views(public[index.to(public.device)]) * 2 - 1

    def teach(self, images: Images) -> None:
        """Let the students learn what the target says of views of images in [-1, 1]."""
        self.students.learn(self.views.vary((images + 1) / 2))

    def draw_noise(self, count: int) -> Latents:
        """Latents from N(0, I), drawn on the CPU: the same on every machine."""
        return torch.randn(count, self.generator.latent_size).to(machine.device())

    def draw_latents(self) -> tuple[Latents, Labels, Labels]:
        """Latents, classes and codes of a batch; its two halves hold the same classes, evenly spread."""
        half = self.recipe.batch_size // 2
        rounds = math.ceil(half / len(self.classes))
        classes = torch.tensor(self.classes)
        labels = torch.cat([classes[torch.randperm(len(classes))] for _ in range(rounds)])[:half].repeat(2)
        codes = torch.randint(self.recipe.code_count, (2 * half,))
        return self.draw_noise(2 * half), labels.to(machine.device()), codes.to(machine.device())

    def set_learning_rate(self, share_done: float) -> None:
        """Constant, then a straight fall to 5 % over the last `decay_share` of the steps."""
        decay = self.recipe.decay_share
        left = 1.0 if decay == 0 else min(1.0, 0.05 + 0.95 * (1 - share_done) / decay)
        for optimiser in (self.generator_optimiser, self.discriminator_optimiser):
            for group in optimiser.param_groups:
                group["lr"] = self.recipe.learning_rate * left

    @torch.no_grad()
    def sample(self, latents: Latents, labels: Labels) -> Bytes:
        """Draw images for latents and classes, 8 bits a pixel; codes take turns."""
        self.generator.eval()
        codes = torch.arange(len(labels)) % self.recipe.code_count
        condition = (labels if self.recipe.is_conditional else codes).to(machine.device())
        batches = [
            self.generator(*pair) for pair in zip(latents.split(256), condition.split(256), strict=True)
        ]
        self.generator.train()
        return ((torch.cat(batches) + 1) * 127.5).round().clamp(0, 255).byte().cpu()

    def keep_snapshot(self) -> None:
        """Keep what the generator draws now from the latents of all snapshots."""
        labels = torch.tensor(self.classes).repeat_interleave(SNAPSHOT_COUNT)
        images = self.sample(self.snapshot_latents, labels)
        self.snapshots.append(
            {"step": self.step, "seconds": self.seconds, "images": images, "labels": labels}
        )

    def answer(self, count_per_class: int) -> dict[str, Any]:
        """The reconstructions of this generator's classes, and its snapshots."""
        labels = torch.tensor(self.classes).repeat_interleave(count_per_class)
        images = self.sample(self.draw_noise(len(labels)), labels)
        return {"images": images, "labels": labels, "snapshots": self.snapshots}

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the random state."""
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "students": self.students.state(),
            "snapshot_latents": self.snapshot_latents,
            "snapshots": self.snapshots,
            "step": self.step,
            "seconds": self.seconds,
            "queries": dataclasses.asdict(self.door.queries),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.students.restore(state["students"])
        self.snapshot_latents = state["snapshot_latents"].to(machine.device())
        self.snapshots, self.step, self.seconds = state["snapshots"], state["step"], state["seconds"]
        self.door.queries = Queries(**state["queries"])

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "discriminators": self.discriminators,
            "code_classifier": self.code_classifier,
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }
