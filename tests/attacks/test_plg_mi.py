import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from patchmi import losses
from patchmi.attacks.conditional_search import CHUNK_SIZE
from patchmi.attacks.identity import IdentityTerm
from patchmi.attacks.plg_mi import BATCH_SIZE, PlgMI, _Run
from patchmi.attacks.pseudo_labels import best_public
from patchmi.runs import open_run
from patchmi.target import Queries, Target, WhiteBox
from patchmi.types import Reconstructions, silent
from patchmi.views import slight_views

BRIEF = PlgMI(
    gan_step_count=12, step_count=30, discriminator_step_count=1, gan_learning_rate=6e-3, alpha=5.0, width=8
)
SHORT = dataclasses.replace(BRIEF, gan_step_count=4, step_count=3, width=4)


@pytest.fixture(scope="module")
def target(fit: Callable[..., nn.Module]) -> Target:
    return Target(fit("resnet10", width=4), class_names=("a", "b", "c", "d"), image_shape=(1, 16, 16))


@pytest.fixture(scope="module")
def public(quarters) -> torch.Tensor:
    """Images of the target's kind, without their labels."""
    return quarters(120, seed=4)[0]


def test_the_hinge_stops_pulling_at_what_is_judged_surely_enough():
    """By hand: public 2, .5, -1 → 0, .5, 2; generated -3, .25 → 0, 1.25."""
    loss = losses.hinge_loss(real=torch.tensor([2.0, 0.5, -1.0]), fake=torch.tensor([-3.0, 0.25]))
    assert float(loss) == pytest.approx(2.5 / 3 + 1.25 / 2)
    real = torch.tensor([2.0, 0.5], requires_grad=True)
    fake = torch.tensor([-3.0, 0.25], requires_grad=True)
    losses.hinge_loss(real=real, fake=fake).backward()
    assert real.grad is not None
    assert fake.grad is not None
    assert real.grad.tolist() == [0, -0.5]
    assert fake.grad.tolist() == [0, 0.5]
    assert float(losses.critic_prior_loss(torch.tensor([2.0, 0.5, -1.0]))) == pytest.approx(-0.5)


def test_with_images_of_the_targets_kind_a_judge_recognises_it_and_not_its_control(target, public, fit):
    judge = fit("lenet", width=4, seed=1)

    def recognised(images: torch.Tensor, labels: torch.Tensor) -> float:
        with torch.no_grad():
            return float((judge(images).argmax(dim=1) == labels).float().mean())

    made = BRIEF(WhiteBox(target), public, count_per_class=20)
    control = BRIEF.without_target()(WhiteBox(target), public, count_per_class=20)
    assert recognised(made.images, made.labels) >= 0.8
    assert recognised(control.images, control.labels) < 0.5
    assert made.images.unflatten(0, (4, 20)).std(dim=1).mean() > 0.01


def test_the_conditional_gan_alone_learns_the_classes_from_pseudo_labels(target, quarters, fit):
    """α = 0 and no more than one step of the search: what is recognised, the discriminator has taught."""
    judge = fit("lenet", width=4, seed=1)
    attack = dataclasses.replace(BRIEF, gan_step_count=200, gan_learning_rate=3e-3, alpha=0.0, step_count=1)
    made = attack(WhiteBox(target), quarters(120, seed=4)[0], count_per_class=20)
    with torch.no_grad():
        hits = judge(made.images).argmax(dim=1) == made.labels
    assert hits.float().mean() >= 0.7


def test_the_discriminator_is_shown_a_classs_own_best_public_images(target, public):
    run = _Run(dataclasses.replace(SHORT, top_n=5), WhiteBox(target), 1)
    run.prepare(public, silent)
    best = best_public(WhiteBox(target), public, n=5, progress=silent)
    seen = {label: set() for label in range(4)}
    for _ in range(8):
        images, labels = run._draw_public(public)
        assert images.shape == (BATCH_SIZE, 1, 16, 16)
        for image, label in zip(images, labels.tolist(), strict=True):
            distances = ((image + 1) / 2 - public).abs().amax(dim=(1, 2, 3))
            seen[label].add(int(distances.argmin()))
            assert distances.min() < 1e-6
    assert seen == {label: set(best[label].tolist()) for label in range(4)}


def test_without_the_target_any_public_image_is_of_any_class_and_nothing_is_asked(target, public):
    door, control = WhiteBox(target), SHORT.without_target()
    run = _Run(control, door, 1)
    run.prepare(public, silent)
    drawn = [run._draw_public(public) for _ in range(40)]
    pictures = torch.cat([images for images, _ in drawn])[:, 0, 4:12, 4:12].mean(dim=(1, 2))
    labels = torch.cat([labels for _, labels in drawn])
    means = torch.stack([pictures[labels == label].mean() for label in range(4)])
    assert means.max() - means.min() < 0.1
    control(door, public, count_per_class=2)
    assert door.queries == Queries()


@pytest.mark.parametrize(("alpha", "gan_questions"), [(0.0, 0), (0.2, 4)])
def test_questions_are_one_look_a_step_of_the_generator_and_two_views_a_step_of_the_search(
    alpha, gan_questions, target, public
):
    door = WhiteBox(target)
    dataclasses.replace(SHORT, alpha=alpha, discriminator_step_count=2)(door, public, count_per_class=5)
    assert door.queries == Queries(
        forward=1 + gan_questions + 3,
        backward=gan_questions + 3,
        images=len(public) + gan_questions * BATCH_SIZE + 3 * 2 * 4 * 5,
    )


def test_many_images_are_searched_in_chunks(target, public):
    door = WhiteBox(target)
    attack = dataclasses.replace(SHORT, gan_step_count=1, step_count=1, alpha=0.0)
    made = attack(door, public, count_per_class=CHUNK_SIZE // 4 + 1)
    assert len(made.images) == CHUNK_SIZE + 4
    assert door.queries == Queries(forward=1 + 2, backward=2, images=len(public) + 2 * (CHUNK_SIZE + 4))


def test_a_latent_is_moved_by_its_own_image_alone(target, public, monkeypatch):
    """One step of Adam at .1, the sign of each gradient: as in one chunk, so in several."""
    moved = []
    for size in (1000, 7):
        monkeypatch.setattr("patchmi.attacks.conditional_search.CHUNK_SIZE", size)
        torch.manual_seed(0)
        run = _Run(dataclasses.replace(SHORT, precision="float32"), WhiteBox(target), 5)
        run.search.views = dataclasses.replace(run.search.views, transform=nn.Identity())
        before = run.search.latents.detach().clone()
        run.search_step()
        assert ((run.search.latents - before).abs() - 0.1).abs().max() < 0.01
        moved.append(run.search.latents.detach())
    torch.testing.assert_close(moved[0], moved[1], atol=1e-3, rtol=0)


def test_the_search_pleases_the_target_and_leaves_the_generator_as_it_is(target, public):
    torch.manual_seed(0)
    run = _Run(BRIEF, WhiteBox(target), 5)
    run.prepare(public, silent)
    for _ in range(BRIEF.gan_step_count):
        run.train_step(public)
    before = {name: value.clone() for name, value in run.generator.state_dict().items()}
    heard = [float(run.search_step()["attack"]) for _ in range(25)]
    assert sum(heard[-3:]) < sum(heard[:3]) - 3
    for name, value in run.generator.state_dict().items():
        assert torch.equal(value, before[name]), name


class Stopped(Exception):  # noqa: N818 - the end of a process, here without a process
    pass


def stopped_after(count: int) -> Callable[[Iterable[int], str], Iterable[int]]:
    """A progress that ends the attack before this step of its two stages."""
    left = [count]

    def progress(steps: Iterable[int], description: str) -> Iterable[int]:
        for step in steps:
            if "PLG-MI" in description:
                left[0] -= 1
                if left[0] < 0:
                    raise Stopped
            yield step

    return progress


@pytest.fixture(scope="module")
def colourful(fit: Callable[..., nn.Module]) -> Callable[..., tuple[Reconstructions, Queries]]:
    """Runs in colour, of a side that is cropped, with students and features: all that a state must hold."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.AvgPool2d(2, ceil_mode=True), fit("resnet10", width=4))
    target = Target(model, class_names=("a", "b", "c", "d"), image_shape=(3, 30, 30))
    public = torch.rand(20, 3, 30, 30, generator=torch.Generator().manual_seed(0))
    term = IdentityTerm(loss="logit", feature_weight=1.0, student_count=1, student_step_count=2)
    attack = dataclasses.replace(SHORT, identity=term, flips=True, discriminator_step_count=2)

    def run(**options: Any) -> tuple[Reconstructions, Queries]:
        door = WhiteBox(target)
        return attack(door, public, count_per_class=2, seed=5, **options), door.queries

    return run


@pytest.fixture(scope="module")
def undisturbed(
    colourful: Callable[..., tuple[Reconstructions, Queries]],
) -> tuple[Reconstructions, Queries]:
    return colourful()


@pytest.mark.parametrize("step_count", [1, 4, 6], ids=["in the GAN", "between the stages", "in the search"])
def test_killed_in_either_stage_it_goes_on_to_the_same_bytes(
    step_count, tmp_path: Path, colourful, undisturbed
):
    with open_run(tmp_path, config={}, resume=False) as run, pytest.raises(Stopped):
        checkpoint = run.checkpoint("attack", every_seconds=0.0)
        colourful(checkpoint=checkpoint, progress=stopped_after(step_count))
    torch.manual_seed(77)
    with open_run(tmp_path, config={}, resume=True) as run:
        made, queries = colourful(checkpoint=run.checkpoint("attack", every_seconds=0.0))
    expected, expected_queries = undisturbed
    assert torch.equal(made.images, expected.images)
    assert queries == expected_queries
    assert len(made.snapshots) == len(expected.snapshots)
    for one, other in zip(made.snapshots, expected.snapshots, strict=True):
        assert one.step == other.step
        assert torch.equal(one.images, other.images)


def test_snapshots_run_through_both_stages_and_end_with_the_answer(target, public):
    made = dataclasses.replace(SHORT, gan_step_count=20, step_count=10)(
        WhiteBox(target), public, count_per_class=25
    )
    steps = [snapshot.step for snapshot in made.snapshots]
    assert steps == [0, 1, 2, 4, 7, 10, 15, 20, 21, 22, 24, 25, 28, 30]
    seconds = [snapshot.seconds for snapshot in made.snapshots]
    assert seconds == sorted(seconds)
    assert seconds[0] > 0, "the look at the public images takes its time too"
    first = made.images.unflatten(0, (4, 25))[:, :20].flatten(0, 1)
    assert torch.equal(made.snapshots[-1].images, first)
    for snapshot in made.snapshots:
        assert snapshot.labels.tolist() == [label for label in range(4) for _ in range(20)]


@pytest.mark.parametrize("flips", [False, True])
def test_views_stay_in_range_differ_and_are_mirrored_only_if_asked(flips):
    images = 0.1 * torch.rand(1, 1, 16, 16, generator=torch.Generator().manual_seed(0)).repeat(200, 1, 1, 1)
    images[..., :5] += 0.9
    torch.manual_seed(0)
    views = slight_views(16, flips=flips, draw_count=2).draw(images)
    assert views.shape == (400, 1, 16, 16)
    assert views.min() >= 0
    assert views.max() <= 1 + 1e-5
    assert len({view.numpy().tobytes() for view in views}) > 250
    bright_right = (views[..., 8:].mean(dim=(1, 2, 3)) > views[..., :8].mean(dim=(1, 2, 3))).float().mean()
    assert 0.4 < bright_right < 0.6 if flips else bright_right == 0


def test_few_public_images_are_said_to_be_few(target, public):
    made = SHORT(WhiteBox(target), public[:10], count_per_class=1)
    assert len(made.notes) == 1
    assert "10 public images" in made.notes[0]
    assert SHORT(WhiteBox(target), public, count_per_class=1).notes == ()
    assert SHORT.without_target()(WhiteBox(target), public[:10], count_per_class=1).notes == ()


def test_its_loops_are_counted_by_the_settings_that_count_them():
    assert PlgMI().step_counts(1000, 32) == {"gan_step_count": 30_000, "step_count": 600}
    assert SHORT.without_target().step_counts(1000, 32) == {"gan_step_count": 4}
    taught = dataclasses.replace(SHORT, identity=IdentityTerm(student_count=2, student_step_count=9))
    assert taught.step_counts(1000, 32) == {
        "gan_step_count": 4,
        "step_count": 3,
        "identity.student_step_count": 9,
    }


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("step_count", 0),
        ("gan_step_count", 0),
        ("discriminator_step_count", 0),
        ("top_n", 0),
        ("width", -1),
        ("alpha", -0.1),
        ("gan_learning_rate", 0.0),
    ],
)
def test_settings_out_of_range_are_refused_by_name(setting, value):
    with pytest.raises(ValueError, match=f"^{setting} is {value}: give ") as refused:
        PlgMI(**{setting: value})
    assert "\n" not in str(refused.value)


def test_images_that_are_not_square_are_refused_before_anything_is_asked():
    class Wide(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return images.flatten(1)[:, :2]

    door = WhiteBox(Target(Wide(), class_names=("a", "b"), image_shape=(1, 8, 12)))
    with pytest.raises(ValueError, match="8×12 pixels: pad or resize"):
        SHORT(door, torch.rand(4, 1, 8, 12))
    assert door.queries == Queries()
