import dataclasses
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.attacks import generative
from patchmi.attacks.generative import SEARCHES, GenerativeMI
from patchmi.attacks.identity import IdentityTerm, TargetsWord
from patchmi.attacks.public_gan import GanTraining, PublicGan, public_gan
from patchmi.runs import Cache
from patchmi.target import Target, WhiteBox
from patchmi.types import Reconstructions, silent

SMALL = GanTraining(step_count=3, batch_size=8, latent_size=6, width=4, learning_rate=1e-3)
SHAPE = (1, 16, 16)


@pytest.fixture(scope="module")
def target(fit) -> Target:
    return Target(fit("resnet10", width=4), class_names=("a", "b", "c", "d"), image_shape=SHAPE)


@pytest.fixture
def public(blobs) -> torch.Tensor:
    return blobs(40, seed=1)


def run(attack: GenerativeMI, door: WhiteBox, public: torch.Tensor, **changes: Any) -> Reconstructions:
    settings: dict[str, Any] = {"count_per_class": 2} | changes
    return attack(door, public, **settings)


class Tilt(nn.Module):
    """Brightens a grey square by what lies behind each latent: simple enough to follow by hand."""

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        return torch.tanh(latents.sum(dim=1) / 4)[:, None, None, None].expand(-1, 1, 16, 16)


class Mean(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.mean(dim=(1, 2, 3))


def hunt_of(target: Target, attack: GenerativeMI, *, count_per_class: int = 2) -> generative._Hunt:
    torch.manual_seed(0)
    gan = PublicGan(Tilt(), Mean(), latent_size=3)
    word = TargetsWord(attack.identity, WhiteBox(target))
    return generative._Hunt(attack.search, gan, word, count_per_class=count_per_class)


def total_loss(target: Target, latents: torch.Tensor, labels: torch.Tensor, *, recipe: str) -> torch.Tensor:
    """The published loss of one image, written out."""
    images = torch.tanh(latents.sum(dim=1) / 4)[:, None, None, None].expand(-1, 1, 16, 16)
    identity = F.cross_entropy(target.model((images + 1) / 2), labels)
    judgement = images.mean(dim=(1, 2, 3))
    if recipe == "gmi":
        return 100 * identity - judgement.mean()
    return identity + 0.15 * -torch.log(torch.sigmoid(judgement)).mean()


def test_the_comparisons_search_is_sgd_in_batches_of_a_thousand_with_one_sigmoid(target) -> None:
    """Momentum, weight decay and a rate that falls by a fifth every 100 steps, written out."""
    hunt = hunt_of(target, GenerativeMI())
    latents, velocity = hunt.latents.detach().clone(), torch.zeros(8, 3)
    labels = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3])
    for step in range(205):
        leaf = latents.clone().requires_grad_()
        loss = total_loss(target, leaf, labels, recipe="comparison") * 8 / 1000
        (gradient,) = torch.autograd.grad(loss, leaf)
        velocity = 0.9 * velocity + gradient + 5e-4 * latents
        latents = latents - 10 * 0.8 ** (step // 100) * velocity
        hunt.advance(precision="float32")
        torch.testing.assert_close(hunt.latents.detach(), latents, atol=1e-3, rtol=1e-3)
    assert hunt.optimiser.param_groups[0]["lr"] == pytest.approx(6.4)


def test_gmis_search_is_its_momentum_formula_with_latents_clipped_to_one(target) -> None:
    """v' = μ·v - η·g, z' = clip(z - μ·v + (1 + μ)·v'), as GMI has it."""
    hunt = hunt_of(target, GenerativeMI("gmi"), count_per_class=3)
    latents, velocity = hunt.latents.detach().clone(), torch.zeros(12, 3)
    labels = torch.arange(4).repeat_interleave(3)
    assert latents.abs().max() > 1
    for _ in range(30):
        leaf = latents.clone().requires_grad_()
        (gradient,) = torch.autograd.grad(total_loss(target, leaf, labels, recipe="gmi") * 12 / 100, leaf)
        before, velocity = velocity, 0.9 * velocity - 0.02 * gradient
        latents = (latents - 0.9 * before + 1.9 * velocity).clamp(-1, 1)
        hunt.advance(precision="float32")
        torch.testing.assert_close(hunt.latents.detach(), latents, atol=1e-3, rtol=1e-3)
    assert hunt.latents.abs().max() == 1


@pytest.mark.parametrize("recipe", ["comparison", "gmi"])
def test_a_latent_moves_the_same_however_many_are_searched_beside_it(target, recipe, monkeypatch) -> None:
    attack = GenerativeMI(recipe)
    few, many = hunt_of(target, attack), hunt_of(target, attack, count_per_class=20)
    monkeypatch.setattr(generative, "CHUNK_SIZE", 7)
    with torch.no_grad():
        many.latents[::10] = few.latents
    for _ in range(5):
        few.advance(precision="float32")
        many.advance(precision="float32")
    torch.testing.assert_close(many.latents[::10], few.latents, atol=1e-5, rtol=1e-4)


def test_observed_terms_are_means_over_all_images_whatever_the_chunks(target, monkeypatch) -> None:
    whole, parts = hunt_of(target, GenerativeMI()), hunt_of(target, GenerativeMI())
    together = whole.advance(precision="float32")
    monkeypatch.setattr(generative, "CHUNK_SIZE", 3)
    for name, term in parts.advance(precision="float32").items():
        torch.testing.assert_close(term, together[name])
    assert sorted(together) == ["attack", "prior"]


def test_of_several_searches_each_image_keeps_the_one_that_the_target_is_surest_of(target) -> None:
    attack = GenerativeMI(step_count=3, restart_count=4)
    hunt, ends = hunt_of(target, attack), []
    for step in range(12):
        hunt.advance(precision="float32")
        if step % 3 == 2:
            ends.append(hunt.latents.detach().clone())
    labels = torch.arange(4).repeat_interleave(2)
    with torch.no_grad():
        surenesses = torch.stack(
            [target.model((hunt.gan.generator(end) + 1) / 2).log_softmax(1)[range(8), labels] for end in ends]
        )
    best = surenesses.argmax(dim=0)
    assert len(set(best.tolist())) > 1
    assert torch.equal(hunt.answer, torch.stack([ends[which][image] for image, which in enumerate(best)]))
    assert hunt.word.door.queries.forward == 12 + 4


def test_each_search_begins_from_fresh_latents_without_momentum_at_the_full_rate(target) -> None:
    hunt = hunt_of(target, GenerativeMI(step_count=150, restart_count=2))
    for _ in range(150):
        hunt.advance(precision="float32")
    assert hunt.optimiser.param_groups[0]["lr"] == pytest.approx(8)
    torch.manual_seed(77)
    hunt.advance(precision="float32")
    torch.manual_seed(77)
    fresh = torch.randn(8, 3).requires_grad_()
    labels = torch.arange(4).repeat_interleave(2)
    loss = total_loss(target, fresh, labels, recipe="comparison") * 8 / 1000
    (gradient,) = torch.autograd.grad(loss, fresh)
    expected = fresh.detach() - 10 * (gradient + 5e-4 * fresh.detach())
    torch.testing.assert_close(hunt.latents.detach(), expected, atol=1e-5, rtol=1e-4)


def test_the_published_numbers_are_the_recipes_own() -> None:
    assert (SEARCHES["comparison"].step_count, SEARCHES["comparison"].restart_count) == (1000, 1)
    assert (SEARCHES["gmi"].step_count, SEARCHES["gmi"].restart_count) == (1500, 5)
    assert GenerativeMI().search.form == "dcgan"
    assert GenerativeMI("gmi").search.form == "wgan"
    assert GenerativeMI("gmi", gan=GanTraining("dcgan")).search.form == "dcgan"
    assert GenerativeMI().step_counts(1280, 32) == {"gan.step_count": 500, "step_count": 1000}
    assert GenerativeMI("gmi").step_counts(64, 32) == {"gan.step_count": 280, "step_count": 1500}
    students = GenerativeMI(identity=IdentityTerm(student_count=1)).step_counts(1280, 32)
    assert students["identity.student_step_count"] == 600
    assert GenerativeMI().without_target().step_counts(1280, 32) == {"gan.step_count": 500}


@pytest.mark.parametrize("wrong", [{"top_n": 0}, {"step_count": 0}, {"restart_count": -1}])
def test_counts_below_one_are_refused_by_name(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        GenerativeMI(**wrong)


def test_targets_that_are_not_square_are_refused(fit) -> None:
    target = Target(fit("resnet10", width=4), class_names=("a", "b", "c", "d"), image_shape=(1, 16, 12))
    with pytest.raises(ValueError, match="square"):
        run(GenerativeMI(gan=SMALL), WhiteBox(target), torch.rand(9, 1, 16, 12))


def test_from_the_cache_or_fresh_a_gan_leads_to_the_same_images(target, public, tmp_path: Path) -> None:
    attack = GenerativeMI(gan=SMALL, step_count=2)
    fresh = run(attack, WhiteBox(target), public)
    for _ in range(2):
        made = run(attack, WhiteBox(target), public, cache=Cache(tmp_path))
        assert torch.equal(made.images, fresh.images)
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == 1


def test_without_its_target_it_gives_images_of_the_gan_that_the_attack_searches(
    target, public, tmp_path: Path
) -> None:
    cache, attack = Cache(tmp_path), GenerativeMI("gmi", gan=SMALL, step_count=2)
    run(attack, WhiteBox(target), public, cache=cache)
    door = WhiteBox(target)
    made = run(attack.without_target(), door, public, cache=cache)
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == 1
    assert door.queries.forward == 0
    training = dataclasses.replace(SMALL, form="wgan")
    gan = public_gan(public, training, seed=0, cache=cache, progress=silent, precision="auto")
    torch.manual_seed(0)
    drawn = (gan.generator(torch.randn(8, 6)) + 1) / 2
    torch.testing.assert_close(made.images, drawn, atol=0.6 / 255, rtol=0)


def test_the_gan_learns_only_the_best_public_images_of_the_classes(target, public, tmp_path: Path) -> None:
    """Others may change as they like, if the target gives them to no class more surely."""
    attack, cache = GenerativeMI(gan=SMALL, step_count=2, top_n=2), Cache(tmp_path)
    door = WhiteBox(target)
    made = run(attack, door, public, cache=cache)
    with torch.no_grad():
        surest = target.model(public).log_softmax(dim=1).topk(2, dim=0).indices.flatten().unique()
    kept = public_gan(public[surest], SMALL, seed=0, cache=cache, progress=silent, precision=attack.precision)
    assert len(list(tmp_path.glob("gan-*.safetensors"))) == 1
    assert kept.latent_size == 6
    assert door.queries.images == 40 + 2 * 8
    assert not torch.equal(made.images, run(GenerativeMI(gan=SMALL, step_count=2), door, public).images)
    control = WhiteBox(target)
    run(attack.without_target(), control, public)
    assert control.queries.forward == 0


def test_snapshots_begin_at_the_gan_and_end_at_the_answer(target, public) -> None:
    made = run(GenerativeMI(gan=SMALL, step_count=20), WhiteBox(target), public, count_per_class=23)
    assert [snapshot.step for snapshot in made.snapshots] == [0, 1, 2, 4, 7, 10, 15, 20]
    seconds = [snapshot.seconds for snapshot in made.snapshots]
    assert seconds[0] > 0
    assert seconds == sorted(seconds)
    last = made.snapshots[-1]
    assert last.labels.tolist() == [label for label in range(4) for _ in range(20)]
    assert torch.equal(last.images.view(4, 20, *SHAPE), made.images.view(4, 23, *SHAPE)[:, :20])


@pytest.mark.parametrize(("side", "channels"), [(15, 1), (20, 3)])
def test_any_square_image_is_attacked(side: int, channels: int) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(channels * side**2, 2))
    target = Target(model, class_names=("a", "b"), image_shape=(channels, side, side))
    recipes: tuple[Literal["comparison"], Literal["gmi"]] = ("comparison", "gmi")
    for recipe in recipes:
        attack = GenerativeMI(recipe, gan=SMALL, step_count=2, restart_count=2)
        made = run(attack, WhiteBox(target), torch.rand(9, channels, side, side))
        assert made.images.shape == (4, channels, side, side)


@pytest.mark.parametrize("loss", ["max_margin", "logit"])
def test_the_identity_term_is_what_searches(loss, target, public) -> None:
    identity = IdentityTerm(loss, feature_weight=0.5, student_count=1, student_step_count=2)
    plain = run(GenerativeMI(gan=SMALL, step_count=3), WhiteBox(target), public)
    made = run(GenerativeMI(gan=SMALL, step_count=3, identity=identity), WhiteBox(target), public)
    assert not torch.equal(made.images, plain.images)


@pytest.mark.parametrize(
    "attack",
    [
        GenerativeMI(
            gan=GanTraining(step_count=100, batch_size=64, latent_size=32, width=16, learning_rate=1e-3),
            step_count=30,
            restart_count=5,
        ),
        GenerativeMI(
            "gmi",
            gan=GanTraining(step_count=300, batch_size=32, latent_size=16, width=8, learning_rate=2e-3),
            step_count=30,
            restart_count=2,
        ),
    ],
    ids=list(SEARCHES),
)
def test_with_public_images_of_the_same_kind_another_network_recognises_the_classes(
    attack, target, fit, quarters, tmp_path: Path
) -> None:
    judge, public = fit("lenet", width=4, seed=1), quarters(400, seed=5)[0]
    cache = Cache(tmp_path)

    def recognised(made: Reconstructions) -> float:
        with torch.no_grad():
            return float((judge(made.images).argmax(dim=1) == made.labels).float().mean())

    made = attack(WhiteBox(target), public, count_per_class=20, cache=cache)
    control = attack.without_target()(WhiteBox(target), public, count_per_class=20, cache=cache)
    assert recognised(made) >= 0.8
    assert recognised(control) < 0.5
