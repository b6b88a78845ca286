"""What the training of one Patch-MI generator is made of, and what must be kept to go on with it."""

import copy
import dataclasses
import math
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from patchmi import losses, machine
from patchmi.attacks.base import snapshot_count
from patchmi.attacks.patch_mi_recipes import ClassPatchScale, PatchScale, Recipe
from patchmi.attacks.public_pool import SEEN_AT_ONCE, PublicPool, blank_share
from patchmi.attacks.students import Students
from patchmi.attacks.surrogate import Surrogate
from patchmi.networks import (
    ClassPatchDiscriminator,
    CodeClassifier,
    CodeGenerator,
    ConditionalGenerator,
    PatchDiscriminator,
)
from patchmi.target import Queries, WhiteBox
from patchmi.types import Bytes, Images, Labels, Latents, Progress

DISTANCE_COUNT = 300
"""Pairs of public images of each class that are compared."""
NOISE_SIZE = 100
"""Length of the noise in a latent vector, before the layout."""
FILLED_BELOW = 0.05
"""Share of blank cells below which images fill their frames: photographs have .01, drawings .12 to .4."""

CROPS_NOTE = "Random crops of the public images stood beside them: more images that speak for a class."
LAYOUTS_NOTE = "Each picture was given the layout of a public image: its averages over a few large cells."


class Game:
    """What the training of one generator is made of, and what must be kept to go on with it."""

    def __init__(
        self, recipe: Recipe, door: WhiteBox | Surrogate, classes: list[int], public: Images, *, seed: int = 0
    ) -> None:
        channel_count, image_size, _ = door.image_shape
        self.recipe, self.door, self.classes = recipe, door, classes
        self.pool = PublicPool(public, recipe.public_weights, seed=seed)
        self.layout_cells = channel_count * recipe.layout_size**2 * _gives_layouts(recipe, public)
        self.views = recipe.views(image_size)
        self.public_views = recipe.public_views(image_size) if recipe.public_views else nn.Identity()
        if recipe.is_conditional:
            generator = ConditionalGenerator(
                class_count=door.class_count,
                channel_count=channel_count,
                image_size=image_size,
                latent_size=NOISE_SIZE + self.layout_cells,
                width=recipe.generator_width,
            )
        else:
            generator = CodeGenerator(
                code_count=recipe.code_count,
                channel_count=channel_count,
                image_size=image_size,
                latent_size=NOISE_SIZE + self.layout_cells,
                width=recipe.generator_width,
                level_count=recipe.generator_levels,
            )
        self.generator = machine.place(generator)
        self.average = copy.deepcopy(self.generator)
        self.discriminators = machine.place(
            nn.ModuleList(
                _discriminator(scale, channel_count=channel_count, class_count=door.class_count)
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
        self.snapshot_labels = torch.tensor(classes).repeat_interleave(snapshot_count(door.class_count))
        self.snapshot_latents = self.draw_latents(self.snapshot_labels)
        self.snapshots: list[dict[str, Any]] = []
        self.diversity_caps = torch.zeros(door.class_count, device=machine.device())
        self.step = 0
        self.seconds = 0.0

    @property
    def notes(self) -> tuple[str, ...]:
        """What a reader should know of how it is played."""
        notes = {CROPS_NOTE: self.pool.has_crops, LAYOUTS_NOTE: self.layout_cells > 0}
        return tuple(note for note, is_so in notes.items() if is_so)

    def look_at_public(self, progress: Progress) -> None:
        """Weigh the public images for each class, and see how different two of a class are."""
        self.pool.look(self.door, self.views, progress)
        if self.layout_cells:  # as the classes draw them from now on
            self.snapshot_latents = self.draw_latents(self.snapshot_labels)
        if self.recipe.diversity_weight > 0:
            for label in range(self.door.class_count):
                labels = torch.full((DISTANCE_COUNT,), label)
                first, second = self.draw_public(labels), self.draw_public(labels)
                distance = losses.pooled_distance(first, second, pooling=self.recipe.diversity_pooling)
                self.diversity_caps[label] = self.recipe.diversity_share * distance.mean()

    def draw_public(
        self, labels: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch channels height width"]:
        """Public images in [-1, 1]: one as each label's class draws them, or a batch of any."""
        drawn = self.pool.draw_any(self.recipe.batch_size) if labels is None else self.pool.draw(labels)
        return self.public_views(drawn) * 2 - 1

    def teach(self, images: Images) -> None:
        """Let the students learn what the target says of views of images in [-1, 1]."""
        self.students.learn(self.views.vary((images + 1) / 2))

    @torch.no_grad()
    def update_average(self) -> None:
        """Move the average generator towards the present one; at first it simply follows."""
        decay = min(self.recipe.average_decay, self.step / (self.step + 10))
        present = self.generator.state_dict()
        for name, value in self.average.state_dict().items():
            if value.is_floating_point():
                value.lerp_(present[name], 1 - decay)
            else:
                value.copy_(present[name])

    def draw_latents(self, labels: Labels) -> Latents:
        """Noise from N(0, I), drawn on the CPU: the same on every machine; then any layouts.

        A label's layout is that of a public image as its class draws them.
        """
        noise = torch.randn(len(labels), self.generator.latent_size - self.layout_cells).to(machine.device())
        if not self.layout_cells:
            return noise
        side = self.recipe.layout_size
        layouts = [losses.layouts(self.draw_public(some), side=side) for some in labels.split(SEEN_AT_ONCE)]
        return torch.cat([noise, torch.cat(layouts)], dim=1)

    def layout_loss(self, images: Images, latents: Latents) -> losses.Scalar:
        """How far images in [-1, 1] stand from the layouts in their latents."""
        return losses.layout_loss(
            images,
            latents[:, -self.layout_cells :],
            side=self.recipe.layout_size,
            tolerance=self.recipe.layout_tolerance,
        )

    def draw_batch(self) -> tuple[Latents, Labels, Labels]:
        """Latents, classes and codes of a batch; its two halves hold the same classes, evenly spread."""
        half = self.recipe.batch_size // 2
        rounds = math.ceil(half / len(self.classes))
        classes = torch.tensor(self.classes)
        labels = torch.cat([classes[torch.randperm(len(classes))] for _ in range(rounds)])[:half].repeat(2)
        codes = torch.randint(self.recipe.code_count, (2 * half,))
        return self.draw_latents(labels), labels.to(machine.device()), codes.to(machine.device())

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
        self.average.eval()
        codes = torch.arange(len(labels)) % self.recipe.code_count
        condition = (labels if self.recipe.is_conditional else codes).to(machine.device())
        batches = [self.average(*pair) for pair in zip(latents.split(256), condition.split(256), strict=True)]
        return ((torch.cat(batches) + 1) * 127.5).round().clamp(0, 255).byte().cpu()

    def keep_snapshot(self) -> None:
        """Keep what the generator draws now from the latents of all snapshots."""
        images = self.sample(self.snapshot_latents, self.snapshot_labels)
        snapshot = {
            "step": self.step,
            "seconds": self.seconds,
            "images": images,
            "labels": self.snapshot_labels,
        }
        if isinstance(self.door, Surrogate):
            snapshot["queries"] = self.door.door.account.asked
        self.snapshots.append(snapshot)

    def answer(self, count_per_class: int) -> dict[str, Any]:
        """The reconstructions of this generator's classes, and its snapshots.

        Of `candidate_factor` times as many those are kept whose class target and students are surest of;
        `unselected` are the first ones, None if there were no more.
        """
        candidate_count = math.ceil(self.recipe.candidate_factor * count_per_class)
        labels = torch.tensor(self.classes).repeat_interleave(candidate_count)
        images = self.sample(self.draw_latents(labels), labels)
        unselected = None
        if candidate_count > count_per_class:
            unselected = images.unflatten(0, (-1, candidate_count))[:, :count_per_class].flatten(0, 1)
            sureness = self._sureness(images, labels).unflatten(0, (-1, candidate_count))
            best = sureness.topk(count_per_class).indices.sort().values
            kept = (best + candidate_count * torch.arange(len(best))[:, None]).flatten()
            images, labels = images[kept], labels[kept]
        return {"images": images, "labels": labels, "unselected": unselected, "snapshots": self.snapshots}

    @torch.no_grad()
    def _sureness(self, images: Bytes, labels: Labels) -> Float[Tensor, " n"]:
        """Mean over views, and over target and students, of the class's log-probability, at least -6 each."""
        networks = [self.door.logits, *self.students.networks]
        sureness = []
        for some, their_labels in zip(images.split(256), labels.split(256), strict=True):
            views = self.views.draw(some.to(machine.device()).float() / 255)
            index = their_labels.to(machine.device()).repeat(self.views.count)[:, None]
            scores = [network(views).float().log_softmax(dim=1).gather(1, index) for network in networks]
            sureness.append(torch.cat(scores).clamp_min(-6).view(-1, len(some)).mean(dim=0))
        return torch.cat(sureness).cpu()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the random state."""
        return {
            **{name: part.state_dict() for name, part in self._parts().items()},
            "students": self.students.state(),
            "pool": self.pool.state(),
            "diversity_caps": self.diversity_caps,
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
        self.pool.restore(state["pool"])
        self.diversity_caps = state["diversity_caps"].to(machine.device())
        self.snapshot_latents = state["snapshot_latents"].to(machine.device())
        self.snapshots, self.step, self.seconds = state["snapshots"], state["step"], state["seconds"]
        self.door.queries = Queries(**state["queries"])

    def _parts(self) -> dict[str, Any]:
        return {
            "generator": self.generator,
            "average": self.average,
            "discriminators": self.discriminators,
            "code_classifier": self.code_classifier,
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }


def _gives_layouts(recipe: Recipe, public: Images) -> bool:
    """Whether pictures get layouts: where images are ink on nothing, an empty one would forbid it."""
    if recipe.layouts == "filled":
        return blank_share(public, side=recipe.layout_size) < FILLED_BELOW
    return recipe.layouts == "always"


def _discriminator(
    scale: PatchScale | ClassPatchScale, *, channel_count: int, class_count: int
) -> PatchDiscriminator | ClassPatchDiscriminator:
    if isinstance(scale, PatchScale):
        return PatchDiscriminator(channel_count=channel_count, **dataclasses.asdict(scale))
    return ClassPatchDiscriminator(
        channel_count=channel_count, class_count=class_count, **dataclasses.asdict(scale)
    )
