"""Patch-MI: assemble the classes of a classifier from patches of unrelated images.

J. Jang, H. Lyu, C. Yang, "Patch-MI: Enhancing Model Inversion Attacks via Patch-Based Reconstruction",
arXiv 2312.07040. A generator q is trained, with no pre-trained GAN, to minimise

    JS(q ‖ p_patch) - λ·E_{x~q}[log T(y | v(x))],

where patch discriminators realise the first term on public images and the frozen target T gives the second
on random views v(x).

Differs from the paper: public batches are drawn with replacement, so an epoch is a number of steps; the
target's weights get no gradients. The recipe `default` goes further: one conditional generator for all
classes, a patch discriminator that knows class and place, public images weighed by the target's word, their
layouts, a head start of the prior, batch-norm matching, mode seeking, students, and a choice of the surest.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from patchmi import losses, machine
from patchmi.attacks.base import (
    OBSERVED_EVERY,
    SNAPSHOT_SHARES,
    AbstractAttack,
    Task,
    descend,
    merge_snapshots,
)
from patchmi.attacks.patch_mi_game import Game
from patchmi.attacks.patch_mi_recipes import (
    RECIPES,
    ClassPatchScale,
    Crops,
    Layouts,
    PatchScale,
    PublicWeights,
    Recipe,
    RecipeName,
)
from patchmi.attacks.shards import shards_of
from patchmi.target import WhiteBox
from patchmi.types import Images, Labels, Observer, Progress, Reconstructions, unobserved
from patchmi.views import IDENTITY, Views, blurred_views


@dataclass(frozen=True)
class PatchMI(AbstractAttack):
    """The attack by one of its recipes, and what an experiment changes in it.

    Args:
        recipe: `default`, a published recipe's name, or a `Recipe` of your own.
        step_count: Steps of each generator, instead of the recipe's.
        attack_weight: λ, the weight of the target's word, instead of the recipe's.
        layouts: When a picture is given the layout of a public image of its class, instead of the recipe's;
            `filled`: if these fill their frames (`docs/experiments.md`, "Layouts").
        n_codes: Values of the InfoGAN code, instead of the recipe's; above 1 a network Q learns to read it.
        reduction: `mean_logit` or `per_patch`, instead of the recipe's.
        crops: When random crops of the public images stand beside them, instead of the recipe's;
            `starving`: if few of them look like any class (`docs/experiments.md`, "Why a class starves").
        identity_loss: How an image is told that it is not yet its class: `cross_entropy`, `max_margin` or
            `logit`, instead of the recipe's; the last two do not flatten where a softmax does.
        patches: Off: an ordinary discriminator that judges whole images.
        views: Off: the target sees the images as they are.
        many_views: On: it sees six copies of each, some of them blurred, instead of the recipe's views.
        coordinates: Off: the patch discriminators do not know where a patch stands.
        batch_norm: Off: no batch-norm matching.
        diversity: Off: no mode seeking.
        weights: Off: every class draws all public images alike, and gets no layouts from them.
        selection: Off: every image that is drawn in the end is kept.
        students: Off: no students of the target have a word.
        shard_count: Generators that share the classes, each of a part that is, together, like all of them.
        shard: The only one of them to train, from 0: a suite's cells take one each. None: all, in turn.
        uses_target: Off: the prior alone, an audit's control: what the generator draws without the target.
        precision: Number format of the networks.
    """

    recipe: RecipeName | Recipe = "default"
    step_count: int | None = None
    attack_weight: float | None = None
    layouts: Layouts | None = None
    n_codes: int | None = None
    reduction: losses.PatchReduction | None = None
    crops: Crops | None = None
    identity_loss: losses.IdentityLoss | None = None
    patches: bool = True
    views: bool = True
    many_views: bool = False
    coordinates: bool = True
    batch_norm: bool = True
    diversity: bool = True
    weights: bool = True
    selection: bool = True
    students: bool = True
    shard_count: int = 1
    shard: int | None = None
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        for name in ("step_count", "n_codes", "shard_count"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: give 1 or more, or None for the recipe's")
        if self.many_views and not self.views:
            raise ValueError("many_views is on and views off: give one of the two")
        if self.shard is not None and not 0 <= self.shard < self.shard_count:
            raise ValueError(f"shard is {self.shard}: give 0 to {self.shard_count - 1}, or None for all")

    def settings(self, image_size: int) -> Recipe:
        """The recipe with this attack's changes, for images of `image_size` pixels a side."""
        recipe = RECIPES[self.recipe] if isinstance(self.recipe, str) else self.recipe
        scales = tuple(_fitted(scale, image_size) for scale in recipe.scales)
        if not self.patches:
            scales = (PatchScale(image_size, image_size, padding=0, width=1024, normalises=False),)
        if not self.coordinates:
            scales = tuple(
                replace(scale, sees_coordinates=False) if isinstance(scale, ClassPatchScale) else scale
                for scale in scales
            )
        return replace(
            recipe,
            scales=scales,
            views=self._views(recipe),
            identity_loss=self.identity_loss or recipe.identity_loss,
            step_count=self.step_count or recipe.step_count,
            code_count=self.n_codes or recipe.code_count,
            reduction=self.reduction or recipe.reduction,
            attack_weight=(recipe.attack_weight if self.attack_weight is None else self.attack_weight)
            * self.uses_target,
            batch_norm_weight=recipe.batch_norm_weight * self.batch_norm * self.uses_target,
            diversity_weight=recipe.diversity_weight * self.diversity,
            layouts=(self.layouts or recipe.layouts) if self.weights else "never",
            public_weights=self._weighing(recipe) if self.weights and self.uses_target else None,
            candidate_factor=recipe.candidate_factor if self.selection and self.uses_target else 1.0,
            students=recipe.students if self.students and self.uses_target else (),
        )

    def _views(self, recipe: Recipe) -> Callable[[int], Views]:
        """The random transformation block for images of a given side."""
        if self.many_views:
            return lambda _: blurred_views()
        return recipe.views if self.views else lambda _: IDENTITY

    def _weighing(self, recipe: Recipe) -> PublicWeights | None:
        """How public images are weighed, and when with crops of them."""
        weighing = recipe.public_weights
        return weighing if weighing is None or self.crops is None else replace(weighing, crops=self.crops)

    def without_target(self) -> "PatchMI":
        """The patch prior alone; settings of the target's word, which then say nothing, are as by default."""
        return replace(
            self,
            uses_target=False,
            attack_weight=None,
            batch_norm=True,
            weights=True,
            crops=None,
            identity_loss=None,
            many_views=False,
            selection=True,
            students=True,
            shard_count=1,
            shard=None,
        )

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of a generator."""
        return {"step_count": self.settings(image_size).steps_on(public_count)}

    def _reconstruct(self, door: WhiteBox, public: Images, task: Task) -> Reconstructions:
        recipe = self.settings(door.image_shape[1])
        _check_shape(recipe, door.image_shape)
        notes: tuple[str, ...] = ()
        if recipe.batch_norm_weight > 0 and not door.has_batch_norm:
            recipe = replace(recipe, batch_norm_weight=0.0)
            notes = ("The target has no batch norm: the attack ran without batch-norm matching.",)
        state = task.checkpoint.load() or {"group": 0, "answers": []}
        groups: list[list[int]] = state.get("groups") or self._groups(
            recipe, door, public, seed=task.seed, progress=task.progress
        )
        answers: list[dict[str, Any]] = state["answers"]
        step_count = recipe.steps_on(len(public))
        for group in range(state["group"], len(groups)):
            torch.manual_seed(task.seed * 1_000_003 + groups[group][0])
            game = Game(recipe, door, groups[group], public, seed=task.seed)
            if "game" in state:
                game.restore(state.pop("game"))
                machine.restore_random_state(state["random"])
            else:
                prepare(game, precision=self.precision, progress=task.progress)
            with task.checkpoint.guard():
                play(
                    game,
                    precision=self.precision,
                    steps=task.progress(range(game.step, step_count), self._title(groups, group, task)),
                    after_step=lambda game=game, group=group: task.checkpoint.save_if_due(
                        lambda: {
                            "groups": groups,
                            "group": group,
                            "answers": answers,
                            "game": game.state(),
                            "random": machine.random_state(),
                        }
                    ),
                    step_count=step_count,
                    observe=task.observe,
                    first_step=group * step_count,
                )
            answers.append(game.answer(task.count_per_class))
            notes = (*notes, *(note for note in game.notes if note not in notes))
        labels = torch.cat([answer["labels"] for answer in answers])
        order = labels.argsort(stable=True)

        def joined(name: str) -> Images:
            return torch.cat([answer[name] for answer in answers])[order].float() / 255

        return Reconstructions(
            joined("images"),
            labels[order],
            torch.full_like(labels, task.seed),
            merge_snapshots(answers),
            notes,
            None if answers[0]["unselected"] is None else joined("unselected"),
        )

    def _groups(
        self, recipe: Recipe, door: WhiteBox, public: Images, *, seed: int, progress: Progress
    ) -> list[list[int]]:
        """The classes of each generator."""
        class_count, shard_count = door.class_count, self.shard_count
        # Without the target one generator is as good as another for every class.
        is_shared = recipe.is_conditional or not self.uses_target
        if shard_count > class_count:
            raise ValueError(
                f"shard_count is {shard_count}, the target has {class_count} classes: give fewer"
            )
        if shard_count == 1 or not is_shared:
            shards = [list(range(shard, class_count, shard_count)) for shard in range(shard_count)]
        else:
            with machine.mixed_precision(self.precision):
                shards = shards_of(door, public, shard_count=shard_count, seed=seed, progress=progress)
        chosen = shards if self.shard is None else [shards[self.shard]]
        return chosen if is_shared else [[label] for shard in chosen for label in shard]

    def _title(self, groups: list[list[int]], group: int, task: Task) -> str:
        """What the progress calls the training of one generator."""
        part = "class" if self.shard_count == 1 else "shard"
        which = "" if len(groups) == 1 else f", {part} {group + 1} of {len(groups)}"
        return task.title("Patch-MI", uses_target=self.uses_target) + which


def _fitted(scale: PatchScale | ClassPatchScale, image_size: int) -> PatchScale | ClassPatchScale:
    """A scale for images that may be as small as one patch, which cannot be normalised, or smaller."""
    if isinstance(scale, ClassPatchScale):
        return scale
    patch_size = min(scale.patch_size, image_size)
    is_single = image_size + 2 * scale.padding < patch_size + scale.stride
    return replace(scale, patch_size=patch_size, normalises=scale.normalises and not is_single)


def _check_shape(recipe: Recipe, image_shape: tuple[int, int, int]) -> None:
    """Refuse shapes that the recipe's generator cannot draw."""
    _, height, width = image_shape
    if height != width:
        raise ValueError(
            f"Patch-MI draws square images, the target takes {height}×{width} pixels: pad or resize"
        )
    factor = 1 if recipe.is_conditional else 2**recipe.generator_levels
    if height % factor:
        raise ValueError(
            f"recipe {recipe.name}: draws images of a multiple of {factor} pixels, not of {height}: "
            "take recipe default, or fewer generator_levels"
        )


def prepare(game: Game, *, precision: machine.Precision, progress: Progress) -> None:
    """Before the first step: look at the public images, and let the students learn the target from them."""
    began = time.perf_counter()
    with machine.mixed_precision(precision):
        game.look_at_public(progress)
        if game.recipe.students:
            for _ in progress(range(game.recipe.student_warm_up), "Students learn the target"):
                _, labels, _ = game.draw_batch()
                game.teach(torch.cat([game.draw_public(), game.draw_public(labels)]))
    game.seconds += time.perf_counter() - began


def play(
    game: Game,
    *,
    steps: Iterable[int],
    step_count: int,
    after_step: Callable[[], None],
    precision: machine.Precision,
    observe: Observer,
    first_step: int,
) -> None:
    """Algorithm 1: discriminators and generator take turns; the target, frozen, has its word once it may."""
    recipe = game.recipe
    snapshot_steps = {round(share * step_count) for share in SNAPSHOT_SHARES}
    began = time.perf_counter()
    for step in steps:
        if step in snapshot_steps:
            game.keep_snapshot()
        game.set_learning_rate(step / step_count)
        with machine.mixed_precision(precision):
            latents, labels, codes = game.draw_batch()
            real = game.draw_public(labels)
            fake = game.generator(latents, labels if recipe.is_conditional else codes)

            discriminators_loss = _mean(
                losses.discriminator_loss(
                    real=discriminator(real, labels),
                    fake=discriminator(fake.detach(), labels),
                    smoothing=recipe.smoothing,
                    reduction=recipe.reduction,
                )
                for discriminator in game.discriminators
            )
            descend(game.discriminator_optimiser, discriminators_loss)

            game.discriminators.requires_grad_(False)
            terms = {
                "prior": _mean(
                    losses.generator_loss(discriminator(fake, labels), reduction=recipe.reduction)
                    for discriminator in game.discriminators
                )
            }
            has_begun = step >= recipe.prior_share * step_count
            if has_begun and (recipe.attack_weight > 0 or recipe.code_count > 1):
                terms |= _terms_on_views(game, fake, labels, codes=codes)
            if recipe.diversity_weight > 0:
                first, second = fake.chunk(2)
                terms["diversity"] = losses.mode_seeking_loss(
                    first=first,
                    second=second,
                    pooling=recipe.diversity_pooling,
                    caps=game.diversity_caps[labels[: len(first)]],
                )
            if game.layout_cells:
                terms["layout"] = game.layout_loss(fake, latents)
            descend(game.generator_optimiser, _weighted_sum(terms, recipe))
            game.discriminators.requires_grad_(True)
            if recipe.students and has_begun and step % recipe.student_interval == 0:
                game.teach(torch.cat([real, fake.detach()]))
        game.update_average()
        game.step = step + 1
        now = time.perf_counter()
        game.seconds += now - began
        began = now
        # Reading a loss waits for the device that computes it.
        if observe is not unobserved and step % OBSERVED_EVERY == 0:
            terms["discriminator"] = discriminators_loss
            seen = {name: term.item() for name, term in terms.items()}
            observe(first_step + step, {**seen, "seconds": game.seconds})
        after_step()
    game.keep_snapshot()


def _terms_on_views(game: Game, fake: Images, labels: Labels, *, codes: Labels) -> dict[str, losses.Scalar]:
    """What target, students and Q say of random views of generated images in [-1, 1]."""
    recipe = game.recipe
    views = game.views.draw((fake + 1) / 2)
    terms = {}
    if recipe.attack_weight > 0:
        logits, moments = game.door.logits_and_moments(views, wanted=recipe.batch_norm_weight > 0)
        if moments:
            terms["batch_norm"] = losses.batch_norm_loss(moments)
        logits = game.views.pool(logits)
        identity_loss = losses.IDENTITY_LOSSES[recipe.identity_loss]
        terms["attack"] = identity_loss(logits, _tile(labels, len(logits)))
    if recipe.students:
        terms["students"] = game.students.identity_loss(views, _tile(labels, len(views)))
    if recipe.code_count > 1:
        code_logits = game.code_classifier(views * 2 - 1)
        terms["code"] = losses.code_loss(code_logits, _tile(codes, len(code_logits)))
    return terms


def _weighted_sum(terms: dict[str, losses.Scalar], recipe: Recipe) -> losses.Scalar:
    """The generator's loss: each term times its weight in the recipe."""
    weights = {
        "prior": recipe.prior_weight,
        "batch_norm": recipe.batch_norm_weight,
        "attack": recipe.attack_weight,
        "students": recipe.student_weight,
        "code": recipe.code_weight,
        "diversity": recipe.diversity_weight,
        "layout": recipe.layout_weight,
    }
    return torch.stack([weights[name] * term for name, term in terms.items()]).sum()


def _mean(terms: Iterable[losses.Scalar]) -> losses.Scalar:
    return torch.stack(list(terms)).mean()


def _tile(labels: Labels, count: int) -> Int[Tensor, " judged"]:
    """One label for each of `count` views, of several of the same images."""
    return labels.repeat(count // len(labels))
