"""PatchTransfer: Patch-MI on a target that answers with labels, or scores, and shows no more.

Ours. Students learn the target from its answers to public images and to the generator's own (LOKT, see
`surrogate`), and Patch-MI (J. Jang et al., arXiv 2312.07040) is run against them, who are refitted all along.
Images that the students do not agree on are asked about first; of those drawn in the end, the ones are kept
that the target itself takes for their class when they are shaken a little.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi import machine
from patchmi.attacks.base import AbstractAttack, Task, merge_snapshots, to_bytes
from patchmi.attacks.patch_mi import play
from patchmi.attacks.patch_mi_game import Game
from patchmi.attacks.patch_mi_recipes import RECIPES, Recipe
from patchmi.attacks.surrogate import Surrogate
from patchmi.networks import ARCHITECTURES
from patchmi.target import BlackBox, answer_of
from patchmi.types import Access, Bytes, Images, Labels, Progress, Reconstructions

ASKED_AT_ONCE = 64
"""Images of the generator that are sent at a time."""
CANDIDATES = 4
"""Images that are drawn for each of these; half are sent because students disagree most about them."""
MOST_COPIES = 8
"""Shaken copies of an image that the target votes on in the end, at most."""
VOTED_FACTOR = 1.25
"""Images that are voted on for each that is kept."""
PUBLIC, GENERATED, VOTES = "public images", "the generator's images", "votes on the final images"
"""What images are sent for, in the account."""
TRIES = 5
NO_VOTE_NOTE = "The budget left the target no vote on the final images: the students alone chose them."
ROUND_COUNT = 3
"""Rounds of asking about public images: first any, then such as the students think are of each class."""


@dataclass(frozen=True)
class PatchTransfer(AbstractAttack):
    """Patch-MI against students of a black box.

    Args:
        recipe: Of the generator; terms that need the target's inside are left out, and layouts unless they
            are `always` given: students that know little yet would choose them of wrong classes.
        step_count: Steps of the generator, instead of the recipe's.
        public_share: Share of the budget for answers about public images.
        vote_share: Share of the budget for the choice of the final images, if that is a vote on each;
            what is left is for the generator's images.
        students: Architectures of the students.
        student_width: Channels of their first layer.
        fit_step_count: Batches that the students learn from after each round of public images.
        uses_target: Off: the prior alone, an audit's control, which asks nothing.
        precision: Number format of the networks.
    """

    accesses: ClassVar[tuple[Access, ...]] = ("label", "score")

    recipe: Recipe = RECIPES["default"]
    step_count: int | None = None
    public_share: float = 0.6
    vote_share: float = 0.1
    students: tuple[str, ...] = ("vgg6", "lenet")
    student_width: int = 16
    fit_step_count: int = 400
    uses_target: bool = True
    precision: machine.Precision = "auto"

    def __post_init__(self) -> None:
        if self.public_share <= 0 or self.vote_share < 0 or self.public_share + self.vote_share >= 1:
            raise ValueError(
                f"public_share {self.public_share} and vote_share {self.vote_share}: are shares of the "
                "budget and must leave some for the generator's images"
            )
        for name in ("step_count", "student_width", "fit_step_count"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise ValueError(f"{name} is {count}: give 1 or more")
        for name in self.students:
            if name not in ARCHITECTURES:
                raise ValueError(f"students: there is no {name}; give some of {', '.join(ARCHITECTURES)}")
        if len(self.students) < 2:
            raise ValueError("students: give two or more, or nobody can disagree")

    def settings(self) -> Recipe:
        """The recipe, with students in the target's place and without what only its inside could tell."""
        return replace(
            self.recipe,
            step_count=self.step_count or self.recipe.step_count,
            attack_weight=(self.recipe.attack_weight + self.recipe.student_weight) * self.uses_target,
            students=(),
            batch_norm_weight=0.0,
            layouts="always" if self.recipe.layouts == "always" else "never",
            public_weights=self.recipe.public_weights if self.uses_target else None,
            candidate_factor=self.recipe.candidate_factor if self.uses_target else 1.0,
        )

    def public_budget(self, budget: int) -> int:
        """Public images that are asked about: one at least, or students would have nothing to learn from."""
        return max(1, int(self.public_share * budget))

    def vote_copies(self, budget: int, *, class_count: int, count_per_class: int) -> int:
        """Shaken copies of each final image that the target can vote on; 0: too few labels for one."""
        count = int(self.vote_share * budget) // (class_count * candidate_count(count_per_class))
        return min(MOST_COPIES, count) * self.uses_target

    def without_target(self) -> "PatchTransfer":
        """The patch prior alone."""
        return replace(self, uses_target=False)

    def step_counts(self, public_count: int, image_size: int) -> dict[str, int]:
        """The steps of the generator."""
        del image_size
        return {"step_count": self.settings().steps_on(public_count)}

    def _reconstruct(self, door: BlackBox, public: Images, task: Task) -> Reconstructions:
        recipe = self.settings()
        surrogate = Surrogate(
            door,
            architectures=self.students,
            width=self.student_width,
            learning_rate=3e-3,
            views=recipe.views(door.image_shape[1]),
        )
        game = Game(recipe, surrogate, list(range(door.class_count)), public, seed=task.seed)
        step_count = recipe.steps_on(len(public))
        copies = self.vote_copies(
            door.budget, class_count=door.class_count, count_per_class=task.count_per_class
        )
        votes = copies * door.class_count * candidate_count(task.count_per_class)
        if state := task.checkpoint.load():
            surrogate.restore(state["surrogate"])
            game.restore(state["game"])
            machine.restore_random_state(state["random"])
        elif self.uses_target:
            self._learn_from_public(surrogate, game, task.progress)
        else:
            game.look_at_public(task.progress)

        def after_step() -> None:
            if self.uses_target:
                self._learn_from_generator(
                    surrogate, game, share_done=game.step / step_count, kept_for_votes=votes
                )
            task.checkpoint.save_if_due(
                lambda: {
                    "surrogate": surrogate.state(),
                    "game": game.state(),
                    "random": machine.random_state(),
                }
            )

        with task.checkpoint.guard():
            play(
                game,
                precision=self.precision,
                steps=task.progress(
                    range(game.step, step_count), task.title("PatchTransfer", uses_target=self.uses_target)
                ),
                after_step=after_step,
                step_count=step_count,
                observe=task.observe,
                first_step=0,
            )
        answer, notes = self._chosen(surrogate, game, task, copies=copies)
        labels, unselected = answer["labels"], answer["unselected"]
        return Reconstructions(
            answer["images"].float() / 255,
            labels,
            torch.full_like(labels, task.seed),
            merge_snapshots([answer]),
            (*notes, *game.notes),
            None if unselected is None else unselected.float() / 255,
        )

    def _learn_from_public(self, surrogate: Surrogate, game: Game, progress: Progress) -> None:
        """Ask about public images: first any, then such as the students think are of each class."""
        door, classes = surrogate.door, torch.arange(surrogate.class_count)
        for number in range(1, ROUND_COUNT + 1):
            goal = math.ceil(self.public_budget(door.budget) * number / ROUND_COUNT)
            turn = f"{number} of {ROUND_COUNT}"
            # What is drawn may have been sent before, and is free then: a few tries spend the round's share.
            for _ in range(TRIES):
                missing = goal - door.account.stages.get(PUBLIC, 0)
                if missing <= 0:
                    break
                if number == 1:
                    chosen = game.pool.draw_any(missing)
                else:
                    chosen = game.pool.draw(classes.repeat(math.ceil(missing / len(classes)))[:missing])
                starts = range(0, len(chosen), door.batch_size)
                for start in progress(starts, f"Public images are asked about, {turn}"):
                    surrogate.ask(chosen[start : start + door.batch_size], stage=PUBLIC)
            with machine.mixed_precision(self.precision):
                surrogate.fit(self.fit_step_count, progress, f"Students learn the target, {turn}")
                game.look_at_public(progress)

    def _learn_from_generator(
        self, surrogate: Surrogate, game: Game, *, share_done: float, kept_for_votes: int
    ) -> None:
        """Ask about the generator's images as it learns, and let the students learn from all answers."""
        begun = game.recipe.prior_share
        if share_done <= begun:
            return
        door = surrogate.door
        goal = door.budget - self.public_budget(door.budget) - kept_for_votes
        due = int(goal * (share_done - begun) / (1 - begun)) - door.account.stages.get(GENERATED, 0)
        if due >= ASKED_AT_ONCE or (share_done == 1 and due > 0):
            surrogate.ask(self._most_informative(surrogate, game, due), stage=GENERATED)
        with machine.mixed_precision(self.precision):
            surrogate.learn()

    def _most_informative(self, surrogate: Surrogate, game: Game, count: int) -> Images:
        """Of several times as many images, half by the students' disagreement, half at random."""
        labels = torch.arange(CANDIDATES * count) % surrogate.class_count
        images = game.sample(game.draw_latents(labels), labels).float() / 255
        order = surrogate.disagreement(images.to(machine.device())).argsort(descending=True).cpu()
        others = order[count // 2 :]
        at_random = others[torch.randperm(len(others))[: count - count // 2]]
        return images[torch.cat([order[: count // 2], at_random])]

    def _chosen(
        self, surrogate: Surrogate, game: Game, task: Task, *, copies: int
    ) -> tuple[dict[str, Any], tuple[str, ...]]:
        """The final images: of those that the students are surest of, the ones that the target votes for."""
        count_per_class = task.count_per_class
        if copies == 0:
            return game.answer(count_per_class), (NO_VOTE_NOTE,) if self.uses_target else ()
        drawn_count = candidate_count(count_per_class)
        answer = game.answer(drawn_count)
        rounds = task.progress(range(copies), "The target votes on the final images")
        votes = self._votes(surrogate, answer["images"], answer["labels"], rounds=rounds)
        best = votes.unflatten(0, (-1, drawn_count)).topk(count_per_class).indices.sort().values
        places = drawn_count * torch.arange(len(best))[:, None]
        kept, first = (best + places).flatten(), (torch.arange(count_per_class) + places).flatten()
        unselected = answer["images"] if answer["unselected"] is None else answer["unselected"]
        chosen = {"images": answer["images"][kept], "labels": answer["labels"][kept]}
        return {**answer, **chosen, "unselected": unselected[first]}, ()

    def _votes(
        self, surrogate: Surrogate, images: Bytes, labels: Labels, *, rounds: Iterable[int]
    ) -> Float[Tensor, " n"]:
        """What the target thinks of an image's shaken copies, one a round: the sum of its class's shares."""
        sums = torch.zeros(len(images))
        for _ in rounds:
            shaken = surrogate.views.vary(images.float() / 255)
            answers = answer_of(surrogate.door, to_bytes(shaken), stage=VOTES)
            sums += answers.gather(1, labels[:, None])[:, 0]
        return sums


def candidate_count(count_per_class: int) -> int:
    """Images of a class that are voted on."""
    return math.ceil(VOTED_FACTOR * count_per_class)
