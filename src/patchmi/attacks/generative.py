"""Generative MI: search the latents of a GAN of public images for images that the target takes for a class.

Y. Zhang, R. Jia, H. Pei, W. Wang, B. Li, D. Song, "The Secret Revealer: Generative Model-Inversion Attacks
Against Deep Neural Networks" (GMI), CVPR 2020, equations 2 and 3: find

    argmin_z  λ·L_id(G(z)) + L_prior(G(z)),

L_id the target's loss for the class, L_prior the discriminator's word against the image. The recipe `gmi` is
that paper's, as its code has it; `comparison` the baseline that J. Jang, H. Lyu, C. Yang compare Patch-MI
with (arXiv 2312.07040).

Differs from the papers: every latent moves as it would in a published batch, however many are asked for. In
`comparison` the discriminator's judgement passes one sigmoid, where the published code takes two. In `gmi`
images lie in [-1, 1] while the GAN learns them; its generator is given no blurred or masked image; of the
restarts the one is kept whose image gives its class the greatest probability instead of the greatest logit,
for each image asked for instead of one a class.
"""

import math
import time
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.base import (
    OBSERVED_EVERY,
    SNAPSHOT_SHARES,
    AbstractAttack,
    Task,
    merge_snapshots,
    snapshot_count,
)
from patchmi.attacks.identity import IdentityTerm, TargetsWord
from patchmi.attacks.pseudo_labels import best_public
from patchmi.attacks.public_gan import (
    GanForm,
    GanTraining,
    PublicGan,
    one_patch,
    public_gan,
    restored_gan,
)
from patchmi.target import WhiteBox
from patchmi.types import (
    Bytes,
    Images,
    Latents,
    Progress,
    Reconstructions,
    unobserved,
)

CHUNK_SIZE = 250
"""Latents whose gradients are computed together."""
MOMENTUM = 0.9
DECAY_EVERY = 100
"""Steps from one fall of the learning rate to the next."""


@dataclass(frozen=True)
class LatentSearch:
    """The numbers of a published search."""

    form: GanForm
    """The GAN's."""
    step_count: int
    restart_count: int
    """Searches from fresh latents, of which each image keeps the best."""
    learning_rate: float
    decay: float
    """What the learning rate is multiplied with every `DECAY_EVERY` steps."""
    nesterov: bool
    weight_decay: float
    identity_weight: float
    prior_weight: float
    batch_size: int
    """Latents over which the published losses are averaged."""
    bound: float
    """Each coordinate of a latent is clipped to [-bound, bound] after each step."""


SEARCHES = {
    "comparison": LatentSearch(
        form="dcgan",
        step_count=1000,
        restart_count=1,
        learning_rate=10.0,
        decay=0.8,
        nesterov=False,
        weight_decay=5e-4,
        identity_weight=1.0,
        prior_weight=0.15,
        batch_size=1000,
        bound=math.inf,
    ),
    "gmi": LatentSearch(
        form="wgan",
        step_count=1500,
        restart_count=5,
        learning_rate=0.02,
        decay=1.0,
        nesterov=True,
        weight_decay=0.0,
        identity_weight=100.0,
        prior_weight=1.0,
        batch_size=100,
        bound=1.0,
    ),
}
"""The published searches by recipe."""


@dataclass(frozen=True)
class GenerativeMI(AbstractAttack):
    """The attack by one of its recipes, and what is changed in it.

    Args:
        recipe: `comparison`, the baseline of the Patch-MI comparison; `gmi`, the paper's own.
        gan: The GAN of public images; of the recipe's form unless it says another.
        top_n: Public images of each class that the GAN learns from, those that the target is surest of; None:
            all public images. After X. Yuan et al. (PLG-MI), AAAI 2023.
        step_count: Steps of each search, instead of the recipe's.
        restart_count: Searches of each image, instead of the recipe's.
        identity: How an image is told its class.
        uses_target: Off: what the GAN draws, an audit's control.
        precision: Number format of the networks.

    Raises:
        ValueError: If a count is below 1.
    """

    recipe: Literal["comparison", "gmi"] = "comparison"
    gan: GanTraining = field(default_factory=GanTraining)
    top_n: int | None = None
    step_count: int | None = None
    restart_count: int | None = None
    identity: IdentityTerm = field(default_factory=IdentityTerm)
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if self.recipe not in SEARCHES:
            raise ValueError(f"recipe {self.recipe}: give one of {', '.join(SEARCHES)}")
        for name in ("top_n", "step_count", "restart_count"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: give 1 or more")

    @property
    def search(self) -> LatentSearch:
        """The recipe's search with this attack's changes."""
        published = SEARCHES[self.recipe]
        return replace(
            published,
            form=self.gan.form or published.form,
            step_count=self.step_count or published.step_count,
            restart_count=self.restart_count or published.restart_count,
        )

    def without_target(self) -> "GenerativeMI":
        """The GAN's images of no class."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of a search, of the GAN on all public images, and of the students if there are any."""
        del image_size
        counts = {"gan.step_count": replace(self.gan, form=self.search.form).steps_on(public_count)}
        if self.uses_target:
            counts["step_count"] = self.search.step_count
            if self.identity.student_count > 0:
                counts["identity.student_step_count"] = self.identity.student_step_count
        return counts

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        began = time.perf_counter()
        training = replace(self.gan, form=self.search.form)
        word = TargetsWord(self.identity, door)
        state = task.checkpoint.load()
        if state is None:
            wanted = self._wanted(public, door, task.progress)
            gan = public_gan(
                wanted,
                training,
                seed=task.seed,
                cache=task.cache,
                progress=task.progress,
                precision=self.precision,
            )
            if self.uses_target:
                with machine.mixed_precision(self.precision):
                    word.prepare(public, task.progress)
            hunt = _Hunt(self.search, gan, word, count_per_class=task.count_per_class)
            hunt.seconds = time.perf_counter() - began
        else:
            gan = restored_gan(state["gan"], training, image_shape=door.image_shape)
            word.restore(state["word"])
            hunt = _Hunt(self.search, gan, word, count_per_class=task.count_per_class)
            hunt.restore(state["hunt"])
            machine.restore_random_state(state["random"])
        total = self.search.step_count * self.search.restart_count if self.uses_target else 0
        description = task.title("Generative MI", uses_target=self.uses_target)
        snapshot_steps = {round(share * total) for share in SNAPSHOT_SHARES[:-1]}
        with task.checkpoint.guard():
            for step in task.progress(range(hunt.step, total), description):
                began = time.perf_counter()
                if step in snapshot_steps:
                    hunt.keep_snapshot()
                terms = hunt.advance(precision=self.precision)
                hunt.seconds += time.perf_counter() - began
                # Reading a loss waits for the device that computes it.
                if task.observe is not unobserved and step % OBSERVED_EVERY == 0:
                    seen = {name: term.item() for name, term in terms.items()}
                    task.observe(step, {**seen, "seconds": hunt.seconds})
                task.checkpoint.save_if_due(
                    lambda: {
                        "gan": gan.state(),
                        "word": word.state(),
                        "hunt": hunt.state(),
                        "random": machine.random_state(),
                    }
                )
        hunt.keep_snapshot()
        labels = hunt.labels.cpu()
        return Reconstructions(
            hunt.images(hunt.answer).float() / 255,
            labels,
            torch.full_like(labels, task.seed),
            merge_snapshots([{"snapshots": hunt.snapshots}]),
            ("The seconds hold the training of the GAN only if the cache did not have it yet.",),
        )

    def _wanted(
        self, public: Images, door: WhiteBox, progress: Progress
    ) -> Float[Tensor, "wanted channels height width"]:
        """The public images that the GAN learns from."""
        if self.top_n is None or not self.uses_target:
            return public
        best = best_public(door, public, n=self.top_n, progress=progress)
        return public[best.unique().to(public.device)]


class _Hunt:
    """All latents on their way, and the best that each has been after the searches so far."""

    def __init__(
        self, search: LatentSearch, gan: PublicGan, word: TargetsWord, *, count_per_class: int
    ) -> None:
        self.search, self.gan, self.word = search, gan, word
        labels = torch.arange(word.door.class_count).repeat_interleave(count_per_class)
        is_shown = torch.arange(len(labels)) % count_per_class < snapshot_count(word.door.class_count)
        self.labels, self.is_shown = labels.to(machine.device()), is_shown.to(machine.device())
        self.best_latents = torch.empty(0)
        self.best_sureness = torch.full((len(labels),), -math.inf, device=machine.device())
        self.snapshots: list[dict[str, Any]] = []
        self.step, self.seconds = 0, 0.0
        self._start()

    def _start(self) -> None:
        """Begin a search: latents from N(0, I), drawn on the CPU, the same on every machine."""
        noise = torch.randn(len(self.labels), self.gan.latent_size)
        self.latents: Latents = noise.to(machine.device()).requires_grad_()
        self.optimiser = torch.optim.SGD(
            [self.latents],
            self.search.learning_rate,
            momentum=MOMENTUM,
            nesterov=self.search.nesterov,
            weight_decay=self.search.weight_decay,
        )

    def advance(self, *, precision: machine.Precision) -> dict[str, losses.Scalar]:
        """One step of every latent; after the last of a search, keep what became better than before."""
        turn = self.step % self.search.step_count
        if turn == 0 and self.step > 0:
            self._start()
        falls = turn // DECAY_EVERY
        self.optimiser.param_groups[0]["lr"] = self.search.learning_rate * self.search.decay**falls
        self.optimiser.zero_grad()
        sums: dict[str, losses.Scalar] = {}
        for latents, labels in zip(
            self.latents.split(CHUNK_SIZE), self.labels.split(CHUNK_SIZE), strict=True
        ):
            with machine.mixed_precision(precision):
                fake = self.gan.generator(latents)
                terms = {
                    "attack": self.word.loss((fake + 1) / 2, labels),
                    "prior": self._prior_loss(fake),
                }
            loss = self.search.identity_weight * terms["attack"] + self.search.prior_weight * terms["prior"]
            (loss * len(latents) / self.search.batch_size).backward()
            for name, term in terms.items():
                share = term.detach() * len(latents) / len(self.labels)
                sums[name] = sums[name] + share if name in sums else share
        self.optimiser.step()
        with torch.no_grad():
            self.latents.clamp_(-self.search.bound, self.search.bound)
        self.step += 1
        if turn == self.search.step_count - 1:
            self._keep_best()
        return sums

    def _prior_loss(self, fake: Images) -> losses.Scalar:
        """How far images in [-1, 1] are from passing for public ones."""
        judgement = self.gan.discriminator(fake)
        if self.search.form == "wgan":
            return losses.critic_prior_loss(judgement)
        return losses.generator_loss(one_patch(judgement), reduction="mean_logit")

    @torch.no_grad()
    def _keep_best(self) -> None:
        latents = self.latents.detach()
        if self.search.restart_count == 1:
            self.best_latents = latents
            return
        sureness = self._sureness(latents)
        is_better = sureness > self.best_sureness
        best = self.best_latents if len(self.best_latents) else latents
        self.best_latents = torch.where(is_better[:, None], latents, best)
        self.best_sureness = torch.where(is_better, sureness, self.best_sureness)

    def _sureness(self, latents: Latents) -> Float[Tensor, " n"]:
        """The target's log-probability of each image's class."""
        scores = []
        for some, labels in zip(latents.split(CHUNK_SIZE), self.labels.split(CHUNK_SIZE), strict=True):
            logits = self.word.door.logits((self.gan.generator(some) + 1) / 2).float()
            scores.append(logits.log_softmax(dim=1).gather(1, labels[:, None])[:, 0])
        return torch.cat(scores)

    @property
    def answer(self) -> Latents:
        """The best latents of the searches that are done, or those of the first one as they are."""
        return self.best_latents if len(self.best_latents) else self.latents.detach()

    @torch.no_grad()
    def images(self, latents: Latents) -> Bytes:
        """What the generator draws, 8 bits a pixel, on the CPU."""
        batches = [self.gan.generator(some) for some in latents.split(CHUNK_SIZE)]
        return ((torch.cat(batches) + 1) * 127.5).round().clamp(0, 255).byte().cpu()

    def keep_snapshot(self) -> None:
        """Keep the first images of each class as they are now."""
        self.snapshots.append(
            {
                "step": self.step,
                "seconds": self.seconds,
                "images": self.images(self.answer[self.is_shown]),
                "labels": self.labels[self.is_shown].cpu(),
            }
        )

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but GAN, target's word and random state."""
        return {
            "latents": self.latents.detach(),
            "optimiser": self.optimiser.state_dict(),
            "best_latents": self.best_latents,
            "best_sureness": self.best_sureness,
            "snapshots": self.snapshots,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        with torch.no_grad():
            self.latents.copy_(state["latents"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.best_latents = state["best_latents"].to(machine.device())
        self.best_sureness = state["best_sureness"].to(machine.device())
        self.snapshots, self.step, self.seconds = state["snapshots"], state["step"], state["seconds"]
