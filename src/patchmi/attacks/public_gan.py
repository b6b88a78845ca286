"""The common GAN: what latent attacks know of images, learnt from public images alone.

Two forms. `dcgan` is the GAN of the Patch-MI comparison (J. Jang, H. Lyu, C. Yang, arXiv 2312.07040), of its
generative and variational baselines. `wgan` is GMI's (Y. Zhang et al., "The Secret Revealer", CVPR 2020): a
Wasserstein critic held to slopes of 1 by a gradient penalty (I. Gulrajani et al., NeurIPS 2017, equation 3).

Differs from the papers: public batches are drawn with replacement, so an epoch is a number of steps.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from patchmi import losses, machine
from patchmi.attacks.base import descend
from patchmi.networks import DcganDiscriminator, DcganGenerator, WganCritic, WganGenerator
from patchmi.runs import Cache, Checkpoint
from patchmi.types import Bytes, Images, Latents, PatchLogits, Progress

SMOOTHING = 0.2
"""The DCGAN's discriminator is told that a public image is real with 1 - s."""
PENALTY_WEIGHT = 10.0
CRITIC_STEPS = 5
"""Steps of the Wasserstein critic for each of its generator."""
DRAWN_TOGETHER = 256
"""Images that are drawn at once from a trained generator."""


GanForm = Literal["dcgan", "wgan"]

_PUBLISHED: dict[GanForm, dict[str, int]] = {
    "dcgan": {"epoch_count": 50, "batch_size": 128, "latent_size": 128},
    "wgan": {"epoch_count": 280, "batch_size": 64, "latent_size": 100},
}


@dataclass(frozen=True)
class GanTraining:
    """How the common GAN is trained.

    Args:
        form: `dcgan`, the comparison's; `wgan`, GMI's; None: the one that the attack was published with.
        step_count: Batches of public images, instead of whole epochs.
        epoch_count: Passes over the public images; None: 50 of a dcgan, 280 of a wgan.
        batch_size: Public images a batch; None: 128, 64.
        latent_size: Length of the latent vector; None: 128, 100.
        width: Channels of the discriminator's first stage.
        learning_rate: Adam's, of both networks.

    Raises:
        ValueError: If a number is out of range.
    """

    form: GanForm | None = None
    step_count: int | None = None
    epoch_count: int | None = None
    batch_size: int | None = None
    latent_size: int | None = None
    width: int = 64
    learning_rate: float = 2e-4

    def __post_init__(self) -> None:
        for name in ("step_count", "epoch_count", "batch_size", "latent_size", "width"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: give 1 or more")
        if self.batch_size == 1:
            raise ValueError("batch_size is 1: batch norm needs 2 images or more")
        if not 0 < self.learning_rate < math.inf:
            raise ValueError(f"learning_rate is {self.learning_rate}: give a number above 0")

    def number(self, name: Literal["epoch_count", "batch_size", "latent_size"]) -> int:
        """A setting, or its form's published number."""
        return getattr(self, name) or _PUBLISHED[self.form or "dcgan"][name]

    def steps_on(self, public_count: int) -> int:
        """Batches of the whole training on so many public images."""
        batches_per_epoch = math.ceil(public_count / self.number("batch_size"))
        return self.step_count or self.number("epoch_count") * batches_per_epoch


@dataclass(frozen=True)
class PublicGan:
    """A trained GAN: frozen, in evaluation mode, on the device."""

    generator: nn.Module
    """Latents N×latent_size to images in [-1, 1]."""
    discriminator: nn.Module
    """Images in [-1, 1] to N log-odds of being public; a Wasserstein critic's scores, higher for public."""
    latent_size: int

    @torch.no_grad()
    def draw(self, latents: Latents) -> Bytes:
        """Images of latents, 8 bits a pixel, on the CPU."""
        batches = [self.generator(some.to(machine.device())) for some in latents.split(DRAWN_TOGETHER)]
        return ((torch.cat(batches) + 1) * 127.5).round().clamp(0, 255).byte().cpu()

    def state(self) -> dict[str, dict[str, Tensor]]:
        """What an attack keeps in its checkpoint, to go on where there is no cache."""
        return {
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
        }


def public_gan(
    public: Images,
    training: GanTraining,
    *,
    seed: int,
    cache: Cache,
    progress: Progress,
    precision: machine.Precision,
) -> PublicGan:
    """Train a GAN on public images, or take it from the cache: the same bytes.

    Torch's global random state goes on as if nothing had been drawn.

    Args:
        public: What the attacker has, in [0, 1].
        training: Form and budget.
        seed: Of its weights, batches and latents.
        cache: Where a GAN of the same images, training and seed is kept.
        progress: How to show how far it is.
        precision: Number format of the networks.

    Raises:
        ValueError: If the images are not square.
    """
    channel_count, height, width = public.shape[1:]
    if height != width:
        raise ValueError(
            f"the GAN draws square images, public images are {height}×{width} pixels: pad or resize"
        )

    def make(checkpoint: Checkpoint) -> dict[str, Tensor]:
        with machine.seeded(seed):
            duel = _Duel(training, channel_count=channel_count, image_size=height)
            _train(duel, public, checkpoint=checkpoint, progress=progress, precision=precision)
        return {
            f"{name}.{key}": value
            for name, network in (("generator", duel.generator), ("discriminator", duel.discriminator))
            for key, value in network.state_dict().items()
        }

    key = {
        "public": public,
        "form": training.form or "dcgan",
        "steps": training.steps_on(len(public)),
        "sizes": [training.number("batch_size"), training.number("latent_size"), training.width],
        "learning_rate": training.learning_rate,
        "seed": seed,
        "precision": machine.number_format(precision),
    }
    tensors = cache.tensors("gan", key, make)
    state: dict[str, dict[str, Tensor]] = {"generator": {}, "discriminator": {}}
    for name, tensor in tensors.items():
        network, _, rest = name.partition(".")
        state[network][rest] = tensor
    return restored_gan(state, training, image_shape=(channel_count, height, width))


def restored_gan(
    state: Mapping[str, Mapping[str, Tensor]], training: GanTraining, *, image_shape: tuple[int, int, int]
) -> PublicGan:
    """The GAN whose `state` was kept.

    Args:
        state: What `PublicGan.state` gave.
        training: How it was trained.
        image_shape: Channels, height and width of the public images.
    """
    # The first weights that these networks draw are replaced at once: the random state must not know.
    with machine.seeded(0):
        generator, discriminator = _networks(
            training, channel_count=image_shape[0], image_size=image_shape[1]
        )
    generator.load_state_dict(state["generator"])
    discriminator.load_state_dict(state["discriminator"])
    return PublicGan(
        generator=generator.eval().requires_grad_(False),
        discriminator=discriminator.eval().requires_grad_(False),
        latent_size=training.number("latent_size"),
    )


def _networks(training: GanTraining, *, channel_count: int, image_size: int) -> tuple[nn.Module, nn.Module]:
    """Generator and discriminator of a form, on the device."""
    is_wgan = training.form == "wgan"
    draw, judge = (WganGenerator, WganCritic) if is_wgan else (DcganGenerator, DcganDiscriminator)
    generator = draw(
        channel_count=channel_count,
        image_size=image_size,
        latent_size=training.number("latent_size"),
        width=training.width,
    )
    discriminator = judge(channel_count=channel_count, image_size=image_size, width=training.width)
    return machine.place(generator), machine.place(discriminator)


class _Duel:
    """Both networks and their optimisers."""

    def __init__(self, training: GanTraining, *, channel_count: int, image_size: int) -> None:
        self.training = training
        self.generator, self.discriminator = _networks(
            training, channel_count=channel_count, image_size=image_size
        )
        adam = partial(torch.optim.Adam, lr=training.learning_rate, betas=(0.5, 0.999))
        self.generator_optimiser = adam(self.generator.parameters())
        self.discriminator_optimiser = adam(self.discriminator.parameters())

    def draw(self, count: int) -> Images:
        """Generated images in [-1, 1]; latents are drawn on the CPU, the same on every machine."""
        latents = torch.randn(count, self.training.number("latent_size"))
        return self.generator(latents.to(machine.device()))

    def parts(self) -> dict[str, Any]:
        """All that a checkpoint keeps but the random state."""
        return {
            "generator": self.generator,
            "discriminator": self.discriminator,
            "generator_optimiser": self.generator_optimiser,
            "discriminator_optimiser": self.discriminator_optimiser,
        }


def _train(
    duel: _Duel, public: Images, *, checkpoint: Checkpoint, progress: Progress, precision: machine.Precision
) -> None:
    """Discriminator and generator take turns on batches of public images."""
    state = checkpoint.load()
    first_step = 0
    if state is not None:
        for name, part in duel.parts().items():
            part.load_state_dict(state[name])
        machine.restore_random_state(state["random"])
        first_step = state["step"]
    steps = range(first_step, duel.training.steps_on(len(public)))
    with checkpoint.guard():
        for step in progress(steps, "A GAN learns the public images"):
            index = torch.randint(len(public), (duel.training.number("batch_size"),))
            real = public[index.to(public.device)].to(machine.device()) * 2 - 1
            if duel.training.form == "wgan":
                _wgan_step(duel, real, turns=(step + 1) % CRITIC_STEPS == 0, precision=precision)
            else:
                _dcgan_step(duel, real, precision=precision)
            checkpoint.save_if_due(
                lambda step=step: {
                    "step": step + 1,
                    "random": machine.random_state(),
                    **{name: part.state_dict() for name, part in duel.parts().items()},
                }
            )


def _dcgan_step(duel: _Duel, real: Images, *, precision: machine.Precision) -> None:
    """One step of each network, on the same generated images."""
    with machine.mixed_precision(precision):
        fake = duel.draw(len(real))
        discriminator_loss = losses.discriminator_loss(
            real=one_patch(duel.discriminator(real)),
            fake=one_patch(duel.discriminator(fake.detach())),
            smoothing=SMOOTHING,
            reduction="mean_logit",
        )
        descend(duel.discriminator_optimiser, discriminator_loss)
        duel.discriminator.requires_grad_(False)
        generator_loss = losses.generator_loss(one_patch(duel.discriminator(fake)), reduction="mean_logit")
        descend(duel.generator_optimiser, generator_loss)
        duel.discriminator.requires_grad_(True)


def _wgan_step(duel: _Duel, real: Images, *, turns: bool, precision: machine.Precision) -> None:
    """One step of the critic; if it `turns`, one of the generator too, on fresh latents."""
    with machine.mixed_precision(precision):
        with torch.no_grad():
            fake = duel.draw(len(real))
        critic_loss = losses.critic_loss(real=duel.discriminator(real), fake=duel.discriminator(fake))
    # In float32: it is the distance of slopes from 1.
    shares = torch.rand(len(real)).to(machine.device())
    penalty = losses.gradient_penalty(duel.discriminator, real=real, fake=fake, shares=shares)
    descend(duel.discriminator_optimiser, critic_loss + PENALTY_WEIGHT * penalty)
    if turns:
        duel.discriminator.requires_grad_(False)
        with machine.mixed_precision(precision):
            scores = duel.discriminator(duel.draw(len(real)))
        descend(duel.generator_optimiser, losses.critic_prior_loss(scores))
        duel.discriminator.requires_grad_(True)


def one_patch(log_odds: Float[Tensor, " n"]) -> PatchLogits:
    """A judgement of whole images as that of their only patch."""
    return log_odds[:, None, None, None]
