import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.attacks import public_gan as module
from patchmi.attacks.public_gan import GanTraining, PublicGan, public_gan, restored_gan
from patchmi.losses import critic_loss, critic_prior_loss, gradient_penalty
from patchmi.runs import NO_CACHE, Cache
from patchmi.types import silent

FORMS = ["dcgan", "wgan"]
SMALL = GanTraining(step_count=7, batch_size=8, latent_size=5, width=4, learning_rate=1e-3)


def train(public: torch.Tensor, training: GanTraining = SMALL, **changes: Any) -> PublicGan:
    settings = {"seed": 0, "cache": NO_CACHE, "progress": silent, "precision": "float32"} | changes
    return public_gan(public, training, **settings)


def content(gan: PublicGan) -> list[bytes]:
    return [
        value.numpy().tobytes()
        for network in (gan.generator, gan.discriminator)
        for value in network.state_dict().values()
    ]


@pytest.fixture
def public(blobs) -> torch.Tensor:
    return blobs(40, seed=1)


def test_the_critics_loss_is_minus_the_distance_of_its_mean_scores() -> None:
    real, fake = torch.tensor([3.0, 5.0]), torch.tensor([1.0, 2.0])
    assert float(critic_loss(real=real, fake=fake)) == 1.5 - 4
    assert float(critic_prior_loss(fake)) == -1.5


def test_the_penalty_is_counted_between_the_images_of_each_pair() -> None:
    """D(x) = ‖x‖²/2 has the slope x: 3 at three quarters from 0 to 4, and 2 in the middle of 0 and -4."""
    real, fake = torch.zeros(2, 1, 2, 2), torch.zeros(2, 1, 2, 2)
    fake[0, 0, 0, 1], fake[1, 0, 1, 1] = 4, -4
    penalty = gradient_penalty(
        lambda images: images.square().flatten(1).sum(dim=1) / 2,
        real=real,
        fake=fake,
        shares=torch.tensor([0.75, 0.5]),
    )
    assert float(penalty.detach()) == pytest.approx(((3 - 1) ** 2 + (2 - 1) ** 2) / 2)


def test_the_penalty_pulls_a_linear_critics_slope_to_one() -> None:
    slope = torch.tensor([3.0, 4.0]).requires_grad_()
    images = torch.randn(6, 1, 1, 2)
    penalty = gradient_penalty(
        lambda images: images.flatten(1) @ slope, real=images, fake=-images, shares=torch.rand(6)
    )
    (pull,) = torch.autograd.grad(penalty, slope)
    assert float(penalty.detach()) == pytest.approx(16)
    torch.testing.assert_close(pull, 2 * (5 - 1) * torch.tensor([0.6, 0.8]))


@pytest.mark.parametrize(
    ("training", "public_count", "steps"),
    [
        (GanTraining(), 1280, 500),
        (GanTraining(), 1281, 550),
        (GanTraining("wgan"), 65, 560),
        (GanTraining("wgan", batch_size=13, epoch_count=2), 26, 4),
        (GanTraining(step_count=3, epoch_count=9), 10_000, 3),
    ],
)
def test_steps_are_the_batches_of_the_published_epochs(training, public_count, steps) -> None:
    assert training.steps_on(public_count) == steps


@pytest.mark.parametrize(("form", "latent_size"), [(None, 128), ("dcgan", 128), ("wgan", 100)])
def test_latents_have_the_published_length(form, latent_size, public) -> None:
    gan = train(public, GanTraining(form, step_count=1, batch_size=4, width=2))
    assert gan.latent_size == latent_size
    assert gan.generator(torch.randn(3, latent_size)).shape == (3, 1, 16, 16)


@pytest.mark.parametrize(
    "wrong",
    [
        {"step_count": 0},
        {"width": 0},
        {"latent_size": -1},
        {"batch_size": 1},
        {"learning_rate": 0.0},
        {"learning_rate": float("nan")},
    ],
)
def test_numbers_out_of_range_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GanTraining(**wrong)


def test_images_that_are_not_square_are_refused(public) -> None:
    with pytest.raises(ValueError, match="square"):
        train(public[..., :12])


@pytest.mark.parametrize("form", FORMS)
def test_a_gan_comes_frozen_and_leaves_the_random_state_as_it_was(form, public) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    gan = train(public, dataclasses.replace(SMALL, form=form))
    assert torch.equal(torch.get_rng_state(), before)
    for network in (gan.generator, gan.discriminator):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_from_the_cache_or_fresh_a_gan_has_the_same_bytes(form, public, tmp_path: Path) -> None:
    training = dataclasses.replace(SMALL, form=form)
    loops: list[str] = []

    def progress(steps: Iterable[int], description: str) -> Iterable[int]:
        loops.append(description)
        return steps

    fresh = train(public, training)
    kept = train(public, training, cache=Cache(tmp_path), progress=progress)
    read = train(public, training, cache=Cache(tmp_path), progress=progress)
    assert len(loops) == 1
    assert content(fresh) == content(kept) == content(read)
    for gan in (kept, read):
        latents = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
        assert torch.equal(gan.generator(latents), fresh.generator(latents))


def test_what_a_gan_depends_on_makes_it_another(public, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    gans = [
        train(public, cache=cache),
        train(public, cache=cache, seed=1),
        train(public.flip(3), cache=cache),
        train(public, dataclasses.replace(SMALL, form="wgan"), cache=cache),
        train(public, cache=cache, precision="bfloat16"),
    ]
    gans += [
        train(public, dataclasses.replace(SMALL, **change), cache=cache)
        for change in ({"step_count": 6}, {"batch_size": 9}, {"latent_size": 6}, {"width": 5})
    ]
    gans.append(train(public, dataclasses.replace(SMALL, learning_rate=2e-3), cache=cache))
    assert len({b"".join(content(gan)) for gan in gans}) == len(gans)
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == len(gans)


class Kill(Exception):  # noqa: N818 - the end of a process, here without a process
    """Ends a training between two steps."""


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("done", [1, 5])
def test_killed_in_the_middle_it_goes_on_to_the_same_bytes(form, done, public, tmp_path: Path) -> None:
    training = dataclasses.replace(SMALL, form=form)
    rest: list[int] = []

    def killing(steps: Iterable[int], description: str) -> Iterable[int]:
        for step in steps:
            if step == done:
                raise Kill
            yield step

    def counting(steps: Iterable[int], description: str) -> Iterable[int]:
        rest.extend(steps)
        return rest

    with pytest.raises(Kill):
        train(public, training, cache=Cache(tmp_path, every_seconds=0.0), progress=killing)
    resumed = train(public, training, cache=Cache(tmp_path, every_seconds=0.0), progress=counting)
    assert rest == list(range(done, 7))
    assert content(resumed) == content(train(public, training))
    assert not list(tmp_path.glob("*checkpoint*"))


def test_a_kept_state_gives_the_gan_back_without_a_draw(public) -> None:
    gan = train(public)
    kept = {name: {key: value.clone() for key, value in part.items()} for name, part in gan.state().items()}
    before = torch.get_rng_state()
    again = restored_gan(kept, SMALL, image_shape=(1, 16, 16))
    assert torch.equal(torch.get_rng_state(), before)
    assert content(again) == content(gan)
    assert again.latent_size == gan.latent_size


def duel(form: str) -> Any:
    torch.manual_seed(3)
    return module._Duel(dataclasses.replace(SMALL, form=form), channel_count=1, image_size=16)


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()])


def adam_step(network: nn.Module, loss: torch.Tensor) -> torch.Tensor:
    """Weights after Adam's first step from zero moments: minus the rate times the gradient's sign, nearly."""
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(loss, parameters)
    gradient = torch.cat([one.flatten() for one in gradients])
    return weights(network) - 1e-3 * gradient / (gradient.abs() + 1e-8)


def test_a_step_of_the_dcgan_is_binary_cross_entropy_with_public_images_called_real_by_eight_tenths() -> None:
    played, by_hand = duel("dcgan"), duel("dcgan")
    real = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    torch.manual_seed(9)
    module._dcgan_step(played, real, precision="float32")
    torch.manual_seed(9)
    fake = by_hand.draw(8)
    judged, fooled = by_hand.discriminator(real), by_hand.discriminator(fake.detach())
    loss = -(0.8 * F.logsigmoid(judged) + 0.2 * F.logsigmoid(-judged)).mean() - F.logsigmoid(-fooled).mean()
    expected = adam_step(by_hand.discriminator, loss)
    torch.testing.assert_close(weights(played.discriminator), expected, atol=1e-6, rtol=0)
    nn.utils.vector_to_parameters(expected, by_hand.discriminator.parameters())
    passing = -F.logsigmoid(by_hand.discriminator(fake)).mean()
    expected = adam_step(by_hand.generator, passing)
    torch.testing.assert_close(weights(played.generator), expected, atol=1e-5, rtol=0)
    assert all(parameter.requires_grad for parameter in played.discriminator.parameters())


def test_a_step_of_the_critic_is_the_wasserstein_loss_with_ten_times_the_penalty_on_slopes() -> None:
    played, by_hand = duel("wgan"), duel("wgan")
    real = torch.rand(8, 1, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1
    before = weights(played.generator)
    torch.manual_seed(9)
    module._wgan_step(played, real, turns=False, precision="float32")
    torch.manual_seed(9)
    critic = by_hand.discriminator
    fake = by_hand.draw(8).detach()
    shares = torch.rand(8)
    penalties = []
    for one, other, share in zip(real, fake, shares, strict=True):
        between = (one + share * (other - one))[None].requires_grad_()
        (slope,) = torch.autograd.grad(critic(between)[0], between, create_graph=True)
        penalties.append((slope.square().sum().sqrt() - 1) ** 2)
    loss = critic(fake).mean() - critic(real).mean() + 10 * torch.stack(penalties).mean()
    # Gradients: Adam's first step would make a whole step of those that are 0 but for rounding.
    loss.backward()
    for one, other in zip(played.discriminator.parameters(), critic.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, atol=1e-4, rtol=1e-4)
    assert torch.equal(weights(played.generator), before)


def test_the_generator_has_its_turn_after_every_fifth_step_of_the_critic(public) -> None:
    drawn = [
        weights(train(public, dataclasses.replace(SMALL, form="wgan", step_count=count)).generator)
        for count in (1, 4, 5, 9, 10)
    ]
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[1], drawn[2])
    assert torch.equal(drawn[2], drawn[3])
    assert not torch.equal(drawn[3], drawn[4])


@pytest.mark.parametrize("form", FORMS)
def test_a_gan_learns_what_public_images_look_like(form, quarters) -> None:
    """Bright boxes in the dark: few half-grey pixels, of which it draws almost only at first."""
    public = quarters(200, seed=2)[0]
    latents = torch.randn(200, 16, generator=torch.Generator().manual_seed(4))

    def drawn(step_count: int) -> torch.Tensor:
        training = GanTraining(form, step_count, batch_size=32, latent_size=16, learning_rate=1e-3, width=16)
        return (train(public, training).generator(latents) + 1) / 2

    def grey(images: torch.Tensor) -> float:
        return float(((images > 0.25) & (images < 0.75)).float().mean())

    trained = drawn(150)
    assert grey(drawn(1)) > 0.6
    assert grey(trained) < 0.25
    assert abs(float(trained.mean() - public.mean())) < 0.1
