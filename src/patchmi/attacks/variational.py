"""Variational model inversion (VMI): for each class a distribution over a GAN's latents, not single images.

K.-C. Wang et al., "Variational Model Inversion Attacks", NeurIPS 2021, arXiv 2201.10787. The target's
posterior over images is approached within a GAN G of public images by a miner q(w) of its latents, which
minimises

    -E_{w~q}[log T(y | G(w))] + λ·KL(q ‖ N(0, I)),

the second term by the same draws: log q(w) - log N(w; 0, I). Recipe `mixture` is the miner of the Patch-MI
comparison (J. Jang, H. Lyu, C. Yang, arXiv 2312.07040) with its numbers: 7 Gaussians, 31 × 100 steps of 256
draws. Recipe `flow` is the paper's own kind of miner, a normalising flow.

Differs from the paper: G is the comparison's DCGAN instead of a StyleGAN, so that there is one flow and not
one for each of its layers; couplings are affine instead of additive, and begin as the identity. A flow takes
the comparison's steps, batches and falls of the learning rate.

Differs from the comparison: its density subtracts log K once more and adds .001 to every entry of a
covariance, which need not be invertible then. Here the density is the mixture's, and covariances are L·Lᵀ by
construction, L with the logarithm of its diagonal as parameters, so that weight decay draws it to I instead
of 0. The KL has its word at every step, as in the paper's code, instead of at every fifth.
"""

import math
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import (
    OBSERVED_EVERY,
    SNAPSHOT_SHARES,
    AbstractAttack,
    Task,
    descend,
    merge_snapshots,
    snapshot_count,
)
from patchmi.attacks.identity import IdentityTerm, TargetsWord
from patchmi.attacks.pseudo_labels import best_public
from patchmi.attacks.public_gan import GanTraining, PublicGan, public_gan, restored_gan
from patchmi.losses import Scalar
from patchmi.networks.miners import Densities, FlowMiner, MixtureMiner, import_zuko
from patchmi.target import WhiteBox
from patchmi.types import (
    Bytes,
    Images,
    Labels,
    Latents,
    Observer,
    Progress,
    Reconstructions,
    Snapshot,
    unobserved,
)

STEP_COUNT = 3100
"""Published steps of a miner: 31 epochs of 100."""
MIXTURE_WEIGHT_DECAY = 5e-4
FLOW_LEARNING_RATE = 1e-4
MIXTURE_LEARNING_RATES = (3e-3, 1e-2)
"""For grey images and for colour."""
GAN_NOTE = "The seconds hold the training of the GAN only if the cache did not have it yet."


@dataclass(frozen=True)
class VariationalMI(AbstractAttack):
    """Variational model inversion with one of two miners.

    Args:
        recipe: `mixture` of Gaussians, or normalising `flow` (extra `flow`).
        step_count: Steps of each class's miner, instead of the published 3,100.
        gan: How the GAN of the public images is trained.
        top_n: Let the GAN learn only the public images that are among the n likeliest of some class by the
            target's word; None: all.
        component_count: Gaussians of a mixture.
        kl_weight: λ, the weight of the distance from the latents' prior.
        batch_size: Draws from the miner a step.
        learning_rate: SGD's; a tenth of it after half of the steps, a hundredth after three quarters. None:
            the published .003 for grey images and .01 for colour; .0001 of a flow.
        identity: How images are told their class.
        uses_target: Off: images of the GAN as it is, an audit's control.
        precision: Number format of the networks.

    Raises:
        ValueError: If a number is out of range, or the package for flows is missing.
    """

    recipe: Literal["mixture", "flow"] = "mixture"
    step_count: int | None = None
    gan: GanTraining = field(default_factory=GanTraining)
    top_n: int | None = None
    component_count: int = 7
    kl_weight: float = 1e-3
    batch_size: int = 256
    learning_rate: float | None = None
    identity: IdentityTerm = field(default_factory=IdentityTerm)
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("step_count", "top_n", "component_count", "batch_size"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: give 1 or more")
        if not 0 <= self.kl_weight < math.inf:
            raise ValueError(f"kl_weight is {self.kl_weight}: give 0 or more")
        if self.learning_rate is not None and not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a number above 0")
        if self.recipe == "flow":
            if self.gan.latent_size == 1:
                raise ValueError("recipe flow: couplings need a gan.latent_size of 2 or more")
            import_zuko()

    def without_target(self) -> "VariationalMI":
        """The GAN alone."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of the GAN, of a class's miner, and of the target's students."""
        del image_size
        counts = {"gan.step_count": self.gan.steps_on(public_count)}
        if self.uses_target:
            counts["step_count"] = self.step_count or STEP_COUNT
            if self.identity.student_count > 0:
                counts["identity.student_step_count"] = self.identity.student_step_count
        return counts

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        # Named, so that the attacks of this form share it in the cache.
        training = replace(self.gan, form=self.gan.form or "dcgan")
        train_gan = partial(
            public_gan,
            training=training,
            seed=task.seed,
            cache=task.cache,
            progress=task.progress,
            precision=self.precision,
        )
        if not self.uses_target:
            gan = train_gan(public)
            return _draw_prior(
                gan, class_count=door.class_count, count_per_class=task.count_per_class, seed=task.seed
            )
        began = time.perf_counter()
        state = task.checkpoint.load() or {"label": 0, "answers": []}
        word = TargetsWord(self.identity, door)
        if "gan" in state:
            gan = restored_gan(state.pop("gan"), training, image_shape=door.image_shape)
            word.restore(state.pop("word"))
        else:
            gan = train_gan(self._wanted(public, door, task.progress))
            with machine.mixed_precision(self.precision):
                word.prepare(public, task.progress)
        prepared_seconds = time.perf_counter() - began
        answers: list[dict[str, Any]] = state["answers"]
        step_count = self.step_count or STEP_COUNT
        for label in range(state["label"], door.class_count):
            torch.manual_seed(task.seed * 1_000_003 + label)
            mining = _Mining(self, gan, word, label=label)
            if "mining" in state:
                mining.restore(state.pop("mining"))
                machine.restore_random_state(state["random"])
            elif label == 0:
                mining.seconds = prepared_seconds
            with task.checkpoint.guard():
                _mine(
                    mining,
                    steps=task.progress(
                        range(mining.step, step_count),
                        f"{task.title('Variational MI')}, class {label + 1} of {door.class_count}",
                    ),
                    step_count=step_count,
                    observe=task.observe,
                    first_step=label * step_count,
                    after_step=lambda mining=mining, label=label: task.checkpoint.save_if_due(
                        lambda: {
                            "label": label,
                            "answers": answers,
                            "mining": mining.state(),
                            "gan": gan.state(),
                            "word": word.state(),
                            "random": machine.random_state(),
                        }
                    ),
                )
            answers.append({"images": mining.draw(task.count_per_class), "snapshots": mining.snapshots})
        images = torch.cat([answer["images"] for answer in answers])
        return _answer(
            images,
            class_count=door.class_count,
            seed=task.seed,
            snapshots=merge_snapshots(answers),
        )

    def _wanted(
        self, public: Images, door: WhiteBox, progress: Progress
    ) -> Float[Tensor, "wanted channels height width"]:
        """The public images that the GAN learns."""
        if self.top_n is None:
            return public
        best = best_public(door, public, n=self.top_n, progress=progress)
        return public[best.unique().to(public.device)]

    def miner(self, latent_size: int) -> MixtureMiner | FlowMiner:
        """The miner of one class, before its first step."""
        if self.recipe == "flow":
            return FlowMiner(latent_size=latent_size)
        return MixtureMiner(latent_size=latent_size, component_count=self.component_count)

    def learning_rate_on(self, channel_count: int) -> float:
        """The first learning rate for images of so many channels."""
        published = FLOW_LEARNING_RATE if self.recipe == "flow" else MIXTURE_LEARNING_RATES[channel_count > 1]
        return self.learning_rate or published


def divergence_from_prior(latents: Latents, log_densities: Densities) -> Scalar:
    """KL(q ‖ N(0, I)) by draws from q: the mean of log q(w) - log N(w; 0, I)."""
    log_prior = -0.5 * (latents.square() + math.log(2 * math.pi)).sum(dim=1)
    return (log_densities - log_prior).mean()


class _Mining:
    """The training of one class's miner, and what must be kept to go on with it."""

    def __init__(self, attack: VariationalMI, gan: PublicGan, word: TargetsWord, *, label: int) -> None:
        self.attack, self.gan, self.word, self.label = attack, gan, word, label
        self.miner = machine.place(attack.miner(gan.latent_size))
        self.learning_rate = attack.learning_rate_on(word.door.image_shape[0])
        self.optimiser = torch.optim.SGD(
            self.miner.parameters(),
            self.learning_rate,
            momentum=0.9,
            weight_decay=0.0 if attack.recipe == "flow" else MIXTURE_WEIGHT_DECAY,
        )
        self.snapshot_seed = int(torch.randint(2**31, ()))
        self.snapshots: list[dict[str, Any]] = []
        self.step, self.seconds = 0, 0.0

    def advance(self, share_done: float) -> dict[str, Scalar]:
        """Take one step; gives the terms of the loss."""
        for group in self.optimiser.param_groups:
            group["lr"] = self.learning_rate * 0.1 ** ((share_done >= 0.5) + (share_done >= 0.75))
        latents, log_densities = self.miner.sample(self.attack.batch_size)
        labels = torch.full((len(latents),), self.label, device=latents.device)
        with machine.mixed_precision(self.attack.precision):
            attack = self.word.loss((self.gan.generator(latents) + 1) / 2, labels)
        divergence = divergence_from_prior(latents, log_densities)
        descend(self.optimiser, attack + self.attack.kl_weight * divergence)
        return {"attack": attack, "divergence": divergence}

    @torch.no_grad()
    def draw(self, count: int) -> Bytes:
        """Images from the miner as it is."""
        latents, _ = self.miner.sample(count)
        if not latents.isfinite().all():
            name = self.word.door.class_names[self.label]
            raise ValueError(f"class {name}: the miner diverged; lower learning_rate or kl_weight")
        return self.gan.draw(latents)

    def keep_snapshot(self) -> None:
        """Keep what the miner draws now from the noise of all snapshots."""
        count = snapshot_count(self.word.door.class_count)
        with machine.seeded(self.snapshot_seed):
            images = self.draw(count)
        labels = torch.full((count,), self.label)
        self.snapshots.append(
            {"step": self.step, "seconds": self.seconds, "images": images, "labels": labels}
        )

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the random state, the GAN and the target's word."""
        return {
            "miner": self.miner.state_dict(),
            "optimiser": self.optimiser.state_dict(),
            "snapshot_seed": self.snapshot_seed,
            "snapshots": self.snapshots,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        self.miner.load_state_dict(state["miner"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.snapshot_seed, self.snapshots = state["snapshot_seed"], state["snapshots"]
        self.step, self.seconds = state["step"], state["seconds"]


def _mine(
    mining: _Mining,
    *,
    steps: Iterable[int],
    step_count: int,
    observe: Observer,
    first_step: int,
    after_step: Callable[[], None],
) -> None:
    """Train a miner for the steps that are left."""
    snapshot_steps = {round(share * step_count) for share in SNAPSHOT_SHARES}
    began = time.perf_counter()
    for step in steps:
        if step in snapshot_steps:
            mining.keep_snapshot()
        terms = mining.advance(step / step_count)
        mining.step = step + 1
        now = time.perf_counter()
        mining.seconds += now - began
        began = now
        # Reading a loss waits for the device that computes it.
        if observe is not unobserved and step % OBSERVED_EVERY == 0:
            seen = {name: term.item() for name, term in terms.items()}
            observe(first_step + step, {**seen, "seconds": mining.seconds})
        after_step()
    mining.keep_snapshot()


def _draw_prior(gan: PublicGan, *, class_count: int, count_per_class: int, seed: int) -> Reconstructions:
    """Images of latents from N(0, I), drawn on the CPU: the same on every machine."""
    latents = torch.randn(class_count * count_per_class, gan.latent_size)
    return _answer(gan.draw(latents), class_count=class_count, seed=seed, snapshots=())


def _answer(
    images: Bytes, *, class_count: int, seed: int, snapshots: tuple[Snapshot, ...]
) -> Reconstructions:
    """Images in the order of the classes, as many of each."""
    labels: Labels = torch.arange(class_count).repeat_interleave(len(images) // class_count)
    return Reconstructions(
        images.float() / 255, labels, torch.full_like(labels, seed), snapshots, (GAN_NOTE,)
    )
