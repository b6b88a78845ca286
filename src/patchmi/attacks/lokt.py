"""LOKT: a conditional GAN learns the target's labels, surrogates learn them of it, and are inverted instead.

N.-B. Nguyen, K. Chandrasegaran, M. Abdollahzadeh, N.-M. Cheung, "Label-Only Model Inversion Attacks via
Knowledge Transfer", NeurIPS 2023. A generator G and a discriminator with two heads, D for public or generated
and C for classes, are trained for

    min_{D,C} E[-log D(x)] + E[-log(1 - D(G(z, y)))] + w·E[-log C(T(G(z, y)) | G(z, y))],
    min_G E[-log D(G(z, y))] + w·E[-log C(y | G(z, y))],

with T the target's label, at first without their last terms (T-ACGAN). Then surrogates learn the labels of
fresh images of G, and Adam searches, for each image, a latent z that pleases all of them (max-margin loss).

Differs from the paper: the budget is hard, so the target is asked in batches at even distances, and C learns
older answers again in between; the paper asks about every batch, as this does where the budget allows it.
Surrogates are small networks of different kinds instead of DenseNets, and learn all answers instead of those
about fresh images alone, rare classes as often as others (`surrogate`). There is one search for each image
asked for. Views are mirrored only if asked. The defaults are a short training for a processor.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.base import AbstractAttack, Task, descend
from patchmi.attacks.conditional_search import CHUNK_SIZE, ConditionalSearch
from patchmi.attacks.public_gan import one_patch
from patchmi.attacks.surrogate import Surrogate
from patchmi.networks import ARCHITECTURES, AuxiliaryClassifierDiscriminator, ConditionalResNetGenerator
from patchmi.target import BlackBox
from patchmi.types import Access, Images, Labels, Progress, Reconstructions, Scores
from patchmi.views import slight_views

FOR_GAN, FOR_SURROGATES = "the GAN's training", "fresh images for surrogates"
"""What images are sent for, in the account."""


@dataclass(frozen=True)
class Lokt(AbstractAttack):
    """LOKT: a GAN that hears the target's labels, surrogates, and a search against these.

    The defaults are for a processor; the published numbers, for a GPU, stand in brackets.

    Args:
        step_count: Steps of the search (600).
        gan_step_count: Steps of the generator before it (20,000 to 25,000).
        warm_up_share: Share of these before the target is asked (1,000 to 6,000 steps).
        gan_share: Share of the budget for the GAN's training (.96); it takes one batch a step of the
            discriminator at most, and the surrogates have the rest.
        class_weight: w, of the class head's word beside the discriminator's (1.5).
        discriminator_step_count: Steps of the discriminator before each of the generator (5).
        batch_size: Images of a step, public and generated (128).
        width: Channels of both networks at full resolution.
        gan_learning_rate: Adam's, of both networks (.0002).
        surrogates: Architectures of the surrogates (DenseNets 121, 161 and 169).
        surrogate_width: Channels of their first layer.
        fit_step_count: Batches that the surrogates learn from.
        flips: Whether half of the views are mirrored, as published for faces.
        uses_target: Off: an audit's control: the GAN learns public images alone, and asks nothing.
        precision: Number format of the networks.

    Raises:
        ValueError: If a number is out of range, or a surrogate unknown.
    """

    accesses: ClassVar[tuple[Access, ...]] = ("label", "score")

    step_count: int = 60
    gan_step_count: int = 600
    warm_up_share: float = 0.2
    gan_share: float = 0.5
    class_weight: float = 1.5
    discriminator_step_count: int = 1
    batch_size: int = 64
    width: int = 16
    gan_learning_rate: float = 2e-3
    surrogates: tuple[str, ...] = ("resnet10", "vgg6", "lenet")
    surrogate_width: int = 16
    fit_step_count: int = 600
    flips: bool = False
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        counts = ("step_count", "gan_step_count", "discriminator_step_count", "width")
        for name in (*counts, "surrogate_width", "fit_step_count"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}: give 1 or more")
        if self.batch_size < 2:
            raise ValueError(f"batch_size is {self.batch_size}: batch norm needs 2 images or more")
        if not 0 <= self.warm_up_share < 1:
            raise ValueError(f"warm_up_share is {self.warm_up_share}: give 0 or more, and less than 1")
        if not 0 < self.gan_share < 1:
            raise ValueError(f"gan_share is {self.gan_share}: give a share between 0 and 1")
        if self.class_weight <= 0 or self.gan_learning_rate <= 0:
            raise ValueError(
                f"class_weight {self.class_weight}, gan_learning_rate {self.gan_learning_rate}: give more "
                "than 0"
            )
        if not self.surrogates:
            raise ValueError("surrogates: give one or more")
        for name in self.surrogates:
            if name not in ARCHITECTURES:
                raise ValueError(f"surrogates: there is no {name}; give some of {', '.join(ARCHITECTURES)}")

    @property
    def warm_up_step_count(self) -> int:
        """Steps of the generator before the target is asked."""
        return int(self.warm_up_share * self.gan_step_count)

    def without_target(self) -> "Lokt":
        """What the GAN draws that has heard of no label."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of its three stages."""
        del public_count, image_size
        counts = {"gan_step_count": self.gan_step_count}
        if self.uses_target:
            counts |= {"fit_step_count": self.fit_step_count, "step_count": self.step_count}
        return counts

    def _reconstruct(self, door: BlackBox, public: Images, task: Task) -> Reconstructions:
        _, height, width = door.image_shape
        if height != width:
            raise ValueError(
                f"LOKT draws square images, the target takes {height}×{width} pixels: pad or resize"
            )
        public = public.to(machine.device())
        run = _Run(self, door, task.count_per_class)
        if state := task.checkpoint.load():
            run.restore(state["run"])
            machine.restore_random_state(state["random"])

        def keep() -> None:
            task.checkpoint.save_if_due(lambda: {"run": run.state(), "random": machine.random_state()})

        def take(take_step: Callable[[], dict[str, losses.Scalar]]) -> None:
            run.search.take(take_step, task.observe, queries=door.account.asked)
            keep()

        who = task.title("LOKT", uses_target=self.uses_target)
        with task.checkpoint.guard():
            for _ in task.progress(range(run.search.step, self.gan_step_count), f"{who}: conditional GAN"):
                take(partial(run.train_step, public))
            if self.uses_target:
                run.teach_surrogates(task.progress, f"{who}: surrogates", after_step=keep)
                for _ in task.progress(range(run.search.step, run.search.step_count), f"{who}: latents"):
                    take(run.search_step)
        return run.search.answer(task.seed, self._notes(door), queries=door.account.asked)

    def _notes(self, door: BlackBox) -> tuple[str, ...]:
        lost = door.account.answered.count(0)
        if lost == 0 or not self.uses_target:
            return ()
        return (
            f"Of {lost} of {door.class_count} classes the target named no image that was sent: the "
            "surrogates know nothing of them, and neither do their pictures.",
        )


class _Run:
    """What one run of the attack is made of, and what must be kept to go on with it."""

    def __init__(self, attack: Lokt, door: BlackBox, count_per_class: int) -> None:
        channel_count, image_size, _ = door.image_shape
        shape = {
            "class_count": door.class_count,
            "channel_count": channel_count,
            "image_size": image_size,
            "width": attack.width,
        }
        self.attack, self.door = attack, door
        self.generator = machine.place(ConditionalResNetGenerator(**shape))
        self.discriminator = machine.place(AuxiliaryClassifierDiscriminator(**shape))
        adam = partial(torch.optim.Adam, lr=attack.gan_learning_rate, betas=(0.0, 0.9))
        self.generator_optimiser = adam(self.generator.parameters())
        self.discriminator_optimiser = adam(self.discriminator.parameters())
        self.surrogate = Surrogate(
            door,
            architectures=attack.surrogates,
            width=attack.surrogate_width,
            learning_rate=3e-3,
            views=slight_views(image_size, flips=attack.flips, draw_count=1),
        )
        self.fitted_step_count = 0
        self.search = ConditionalSearch(
            self.generator,
            class_count=door.class_count,
            count_per_class=count_per_class,
            stages=(attack.gan_step_count, attack.step_count if attack.uses_target else 0),
            flips=attack.flips,
        )

    def train_step(self, public: Images) -> dict[str, losses.Scalar]:
        """First stage: some steps of the discriminator, then one of the generator."""
        self.generator.train()
        terms: dict[str, losses.Scalar] = {}
        with machine.mixed_precision(self.attack.precision):
            for turn in range(self.attack.discriminator_step_count):
                terms |= self._train_discriminator(public, turn)
            return terms | self._train_generator()

    def _train_discriminator(self, public: Images, turn: int) -> dict[str, losses.Scalar]:
        count = self.attack.batch_size
        real = public[torch.randint(len(public), (count,)).to(public.device)] * 2 - 1
        with torch.no_grad():
            fake = self.generator(*self.search.draw_batch(count))
        asked, answers = self._asked(fake, due=self._due(turn))
        judged, class_logits = self.discriminator(torch.cat([real, fake, asked]))
        terms = {
            "discriminator": losses.discriminator_loss(
                real=one_patch(judged[:count]),
                fake=one_patch(judged[count : 2 * count]),
                smoothing=0.0,
                reduction="mean_logit",
            )
        }
        loss = terms["discriminator"]
        if len(asked):
            terms["class_head"] = losses.answer_loss(class_logits[2 * count :], answers)
            loss = loss + self.attack.class_weight * terms["class_head"]
        descend(self.discriminator_optimiser, loss)
        return terms

    def _train_generator(self) -> dict[str, losses.Scalar]:
        self.discriminator.requires_grad_(False)
        latents, labels = self.search.draw_batch(self.attack.batch_size)
        judged, class_logits = self.discriminator(self.generator(latents, labels))
        terms = {"prior": losses.generator_loss(one_patch(judged), reduction="mean_logit")}
        loss = terms["prior"]
        if len(self.surrogate.images):  # before the first answers the class head knows nothing
            terms["attack"] = losses.identity_loss(class_logits, labels)
            loss = loss + self.attack.class_weight * terms["attack"]
        descend(self.generator_optimiser, loss)
        self.discriminator.requires_grad_(True)
        return terms

    def _due(self, turn: int) -> int:
        """Images to be sent in this step of the discriminator."""
        attack = self.attack
        if not attack.uses_target or self.search.step < attack.warm_up_step_count:
            return 0
        goal = images_due(
            step=(self.search.step - attack.warm_up_step_count) * attack.discriminator_step_count + turn,
            step_count=(attack.gan_step_count - attack.warm_up_step_count) * attack.discriminator_step_count,
            budget=int(attack.gan_share * self.door.budget),
            batch_size=attack.batch_size,
        )
        return min(attack.batch_size, goal - self.door.account.stages.get(FOR_GAN, 0))

    def _asked(
        self, fake: Float[Tensor, "batch channels height width"], *, due: int
    ) -> tuple[Float[Tensor, "asked channels height width"], Scores]:
        """Images in [-1, 1] and the target's answers: to so many new ones, else to a batch of older ones."""
        surrogate = self.surrogate
        if due > 0:
            surrogate.ask((fake[:due] + 1) / 2, stage=FOR_GAN)
            index = torch.arange(len(surrogate.images))[-due:]
        elif len(surrogate.images):
            index = torch.randint(len(surrogate.images), (self.attack.batch_size,))
        else:
            index = torch.empty(0, dtype=torch.long)
        images, answers = surrogate.images[index], surrogate.answers[index]
        return images.to(machine.device()).float() / 127.5 - 1, answers.to(machine.device())

    def teach_surrogates(
        self, progress: Progress, description: str, *, after_step: Callable[[], None]
    ) -> None:
        """Second stage: send what the budget has left in fresh images, and let the surrogates learn."""

        def go_on(steps: Iterable[int], description: str) -> Iterable[int]:
            """The steps that are left, each with its time and its end."""
            for step in progress(list(steps)[self.fitted_step_count :], description):
                began = time.perf_counter()
                yield step
                self.fitted_step_count += 1
                self.search.seconds += time.perf_counter() - began
                after_step()

        if self.fitted_step_count == 0:
            began = time.perf_counter()
            self._ask_for_surrogates()
            self.search.seconds += time.perf_counter() - began
        with machine.mixed_precision(self.attack.precision):
            self.surrogate.fit(self.attack.fit_step_count, go_on, description)

    def _ask_for_surrogates(self) -> None:
        """Ask about fresh images, of each class as many."""
        for labels in (torch.arange(self.door.left) % self.door.class_count).split(CHUNK_SIZE):
            images = self.search.images(torch.randn(len(labels), self.generator.latent_size), labels)
            self.surrogate.ask(images.float() / 255, stage=FOR_SURROGATES)

    def search_step(self) -> dict[str, losses.Scalar]:
        """Third stage: one step of Adam on every latent."""
        return self.search.advance(self._surrogates_loss, precision=self.attack.precision)

    def _surrogates_loss(self, views: Images, labels: Labels) -> losses.Scalar:
        """The mean over surrogates of the max-margin loss."""
        words = [losses.max_margin_loss(network(views), labels) for network in self.surrogate.networks]
        return torch.stack(words).mean()

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the random state."""
        return {
            **{name: part.state_dict() for name, part in self._parts(self.search.step).items()},
            "surrogate": self.surrogate.state(),
            "fitted_step_count": self.fitted_step_count,
            "search": self.search.state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.search.restore(state["search"])
        for name, part in self._parts(self.search.step).items():
            part.load_state_dict(state[name])
        self.surrogate.restore(state["surrogate"])
        self.fitted_step_count = state["fitted_step_count"]

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


def images_due(*, step: int, step_count: int, budget: int, batch_size: int) -> int:
    """Images that must have been sent by the end of a step: batches at even distances, the first at once.

    After the last step the budget is spent, or a batch was sent in each.

    Args:
        step: Number of the step, from 0.
        step_count: How many there are.
        budget: Images that may be sent in all of them.
        batch_size: Images of a step.
    """
    budget = min(budget, step_count * batch_size)
    batch_count = -(-budget // batch_size)
    return min(budget, batch_size * -(-batch_count * (step + 1) // step_count))
