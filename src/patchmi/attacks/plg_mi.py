"""PLG-MI: a conditional GAN of the public images that the target gives each class, then a search.

X. Yuan et al., "Pseudo Label-Guided Model Inversion Attack via Conditional Generative Adversarial Network",
AAAI 2023. First the public images that the target gives each class most surely become the class's images
(top-n selection). On them a generator G and a discriminator D are trained for

    min_D E[max(0, 1 - D(x, y))] + E[max(0, 1 + D(G(z, y), y))],
    min_G -E[D(G(z, y), y)] + α·E[L(T(v(G(z, y))), y)],

with T the target, v a random view and L the max-margin loss. Then Adam searches, for each image, a latent z
that pleases the target.

Differs from the paper: images lie in [-1, 1] for both networks, without dequantisation noise; views are
mirrored only if asked, since most things but faces are not their mirror images; the search takes the mean of
two views instead of the sum; public batches are drawn with replacement; students and the logit loss (LOMMA)
can be added to both stages.
"""

import time
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.base import AbstractAttack, Task, descend
from patchmi.attacks.conditional_search import ConditionalSearch
from patchmi.attacks.identity import IdentityTerm, TargetsWord
from patchmi.attacks.pseudo_labels import best_public
from patchmi.networks import ConditionalResNetGenerator, ProjectionDiscriminator
from patchmi.target import WhiteBox
from patchmi.types import Images, Progress, Reconstructions
from patchmi.views import slight_views

GAN_STEPS = 30_000
SEARCH_STEPS = 600
BATCH_SIZE = 64


@dataclass(frozen=True)
class PlgMI(AbstractAttack):
    """PLG-MI: conditional GAN, then latent search.

    The published training is long. With one step of the discriminator for each of the generator, a
    gan_learning_rate of .002 and a width of 16, 300 steps and a search of 60 drew handwritten digits in a
    minute and a half of one processor core.

    Args:
        step_count: Steps of the search, instead of 600.
        gan_step_count: Steps of the generator before it.
        discriminator_step_count: Steps of the discriminator after each of the generator.
        top_n: Public images that stand for each class.
        width: Channels of both networks at full resolution; half of the published ones, for half the side.
        gan_learning_rate: Adam's, of both networks.
        alpha: α, the weight of the target's word beside the discriminator's; 0: pseudo-labels alone.
        flips: Whether half of the views are mirrored, as published for faces.
        identity: The target's word in both stages.
        uses_target: Off: an audit's control: the GAN learns public images under random labels, and draws.
        precision: Number format of the networks.

    Raises:
        ValueError: If a number is out of range.
    """

    step_count: int | None = None
    gan_step_count: int = GAN_STEPS
    top_n: int = 30
    discriminator_step_count: int = 5
    width: int = 32
    gan_learning_rate: float = 2e-4
    alpha: float = 0.2
    flips: bool = False
    identity: IdentityTerm = field(default_factory=partial(IdentityTerm, loss="max_margin"))
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("step_count", "gan_step_count", "discriminator_step_count", "top_n", "width"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: give 1 or more")
        if self.alpha < 0:
            raise ValueError(f"alpha is {self.alpha}: give 0 or more")
        if self.gan_learning_rate <= 0:
            raise ValueError(f"gan_learning_rate is {self.gan_learning_rate}: give more than 0")

    @property
    def search_step_count(self) -> int:
        """Steps of the second stage: none without the target, whose word is all that it goes by."""
        return (self.step_count or SEARCH_STEPS) if self.uses_target else 0

    def without_target(self) -> "PlgMI":
        """What the conditional GAN draws that has never heard of the target."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of both stages, and the students' batches."""
        del public_count, image_size
        counts = {"gan_step_count": self.gan_step_count}
        if self.uses_target:
            counts["step_count"] = self.search_step_count
            if self.identity.student_count > 0:
                counts["identity.student_step_count"] = self.identity.student_step_count
        return counts

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        _, height, width = door.image_shape
        if height != width:
            raise ValueError(
                f"PLG-MI draws square images, the target takes {height}×{width} pixels: pad or resize"
            )
        public = public.to(machine.device())
        run = _Run(self, door, task.count_per_class)
        state = task.checkpoint.load()
        if state:
            run.restore(state["run"])
            machine.restore_random_state(state["random"])
        else:
            run.prepare(public, task.progress)
        who = task.title("PLG-MI", uses_target=self.uses_target)
        stages = (
            (partial(run.train_step, public), self.gan_step_count, "conditional GAN"),
            (run.search_step, run.search.step_count, "latents"),
        )
        with task.checkpoint.guard():
            for take_step, end, what in stages:
                for _ in task.progress(range(run.search.step, end), f"{who}: {what}"):
                    run.search.take(take_step, task.observe)
                    task.checkpoint.save_if_due(
                        lambda: {"run": run.state(), "random": machine.random_state()}
                    )
        notes = ()
        if self.uses_target and self.top_n > len(public):
            notes = (
                f"There are {len(public)} public images, fewer than top_n: every class has all of them.",
            )
        return run.search.answer(task.seed, notes)


class _Run:
    """What one run of the attack is made of, and what must be kept to go on with it."""

    def __init__(self, attack: PlgMI, door: WhiteBox, count_per_class: int) -> None:
        channel_count, image_size, _ = door.image_shape
        shape = {
            "class_count": door.class_count,
            "channel_count": channel_count,
            "image_size": image_size,
            "width": attack.width,
        }
        self.attack, self.door = attack, door
        self.generator = machine.place(ConditionalResNetGenerator(**shape))
        self.discriminator = machine.place(ProjectionDiscriminator(**shape))
        adam = partial(torch.optim.Adam, lr=attack.gan_learning_rate, betas=(0.0, 0.9))
        self.generator_optimiser = adam(self.generator.parameters())
        self.discriminator_optimiser = adam(self.discriminator.parameters())
        self.word = TargetsWord(attack.identity, door) if attack.uses_target else None
        self.views = slight_views(image_size, flips=attack.flips, draw_count=1)
        self.search = ConditionalSearch(
            self.generator,
            class_count=door.class_count,
            count_per_class=count_per_class,
            stages=(attack.gan_step_count, attack.search_step_count),
            flips=attack.flips,
        )
        self.chosen: Int[Tensor, "classes best"] | None = None

    def prepare(self, public: Images, progress: Progress) -> None:
        """Choose each class's public images, and let the students learn."""
        began = time.perf_counter()
        if self.word:
            # In 32 bits: half of them would make many images equally sure.
            self.chosen = best_public(self.door, public, n=self.attack.top_n, progress=progress)
            with machine.mixed_precision(self.attack.precision):
                self.word.prepare(public, progress)
        self.search.seconds += time.perf_counter() - began

    def train_step(self, public: Images) -> dict[str, losses.Scalar]:
        """First stage: one step of the generator, then some of the discriminator."""
        self.generator.train()
        with machine.mixed_precision(self.attack.precision):
            terms = self._train_generator()
            for _ in range(self.attack.discriminator_step_count):
                terms["discriminator"] = self._train_discriminator(public)
        return terms

    def _train_generator(self) -> dict[str, losses.Scalar]:
        self.discriminator.requires_grad_(False)
        latents, labels = self.search.draw_batch(BATCH_SIZE)
        fake = self.generator(latents, labels)
        terms = {"prior": losses.critic_prior_loss(self.discriminator(fake, labels))}
        loss = terms["prior"]
        if self.word and self.attack.alpha > 0:
            terms["attack"] = self.word.loss(self.views.draw((fake + 1) / 2), labels)
            loss = loss + self.attack.alpha * terms["attack"]
        descend(self.generator_optimiser, loss)
        self.discriminator.requires_grad_(True)
        return terms

    def _train_discriminator(self, public: Images) -> losses.Scalar:
        latents, fake_labels = self.search.draw_batch(BATCH_SIZE)
        with torch.no_grad():
            fake = self.generator(latents, fake_labels)
        real, real_labels = self._draw_public(public)
        judged = self.discriminator(torch.cat([real, fake]), torch.cat([real_labels, fake_labels]))
        loss = losses.hinge_loss(real=judged[: len(real)], fake=judged[len(real) :])
        descend(self.discriminator_optimiser, loss)
        return loss

    def search_step(self) -> dict[str, losses.Scalar]:
        """Second stage: one step of Adam on every latent."""
        assert self.word is not None, "without the target there is no search"
        return self.search.advance(self.word.loss, precision=self.attack.precision)

    def _draw_public(
        self, public: Images
    ) -> tuple[Float[Tensor, "batch channels height width"], Int[Tensor, " batch"]]:
        """Public images in [-1, 1] of random classes; without the target any image is of any class."""
        labels = torch.randint(self.door.class_count, (BATCH_SIZE,))
        if self.chosen is None:
            index = torch.randint(len(public), (BATCH_SIZE,))
        else:
            index = self.chosen[labels, torch.randint(self.chosen.shape[1], (BATCH_SIZE,))]
        return public[index.to(public.device)] * 2 - 1, labels.to(machine.device())

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the random state."""
        return {
            **{name: part.state_dict() for name, part in self._parts(self.search.step).items()},
            "search": self.search.state(),
            "word": self.word.state() if self.word else None,
            "chosen": self.chosen,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.search.restore(state["search"])
        for name, part in self._parts(self.search.step).items():
            part.load_state_dict(state[name])
        if self.word:
            self.word.restore(state["word"])
        self.chosen = state["chosen"]

    def _parts(self, step: int) -> dict[str, Any]:
        """What has a state of its own in the stage of this step."""
        if step >= self.attack.gan_step_count:
            return {"generator": self.generator}
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }
