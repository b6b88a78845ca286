"""What an audit is given: the private images, the judges, and what the attack may use."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from jaxtyping import Float, Int
from torch import Tensor, nn

from patchmi.attacks import AbstractAttack
from patchmi.data import Source
from patchmi.target import PLAIN, OutputMode, Target
from patchmi.types import Access, Images, Labels
from patchmi.verdict import Rule, counted


@dataclass(frozen=True)
class Private:
    """The images that the target was trained on, and images of the same kind that it never saw."""

    train_images: Images
    train_labels: Labels
    held_out_images: Float[Tensor, "held_out channels height width"]
    held_out_labels: Int[Tensor, " held_out"]
    class_names: tuple[str, ...]
    description: str
    """A noun phrase for the report."""
    may_be_shown: bool = False
    """Whether the report may show held-out images."""


@dataclass(frozen=True)
class Judge:
    """A classifier that no attack sees: it says whether a reconstruction shows the class."""

    name: str
    architecture: str
    model: nn.Module
    trained_on: str
    sha256: str | None = None
    """Of its file, where it came in one."""


@dataclass(frozen=True)
class Findings:
    """What was noticed while the user's files were opened, in sentences for console and report."""

    target: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


NO_FINDINGS = Findings()


LabelledUntrained = tuple[Float[Tensor, "untrained channels height width"], Int[Tensor, " untrained"]]


@dataclass(frozen=True)
class Pictures:
    """Reconstructions that another tool made, to be scored.

    Args:
        images: Pixels in [0, 1].
        labels: The class that each is meant to show.
        seeds: The run that each is of; zeros where there was one.
        class_names: One a class.
        made_by: What the report calls the attack.
        access: What the attack saw of its target.
        public: What the attacker had, if it is known.
        untrained: Images and labels of the same tool without its target, if there are some: a control.
        release_context: Who can reach the target: `open-weights`, `public-api`, `internal`.
        command: The command line that makes this result again.
        rule: Thresholds of the verdict.
        neighbours: k of precision, recall, density and coverage.

    Raises:
        ValueError: If a class has other than the same number of pictures in each run, or too few to measure.
    """

    images: Images
    labels: Labels
    seeds: Labels
    class_names: tuple[str, ...]
    made_by: str = "an attack made elsewhere"
    access: Access = "white-box"
    public: Source | None = None
    untrained: LabelledUntrained | None = None
    release_context: str = "internal"
    command: str = "patchmi score"
    rule: Rule = field(default_factory=Rule)
    neighbours: int = 3

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width."""
        _, channel_count, height, width = self.images.shape
        return channel_count, height, width

    def __post_init__(self) -> None:
        class_count = len(self.class_names)
        for seed in self.seeds.unique().tolist():
            counts = self.labels[self.seeds == seed].bincount(minlength=class_count).tolist()
            if len(counts) > class_count or min(counts) != max(counts):
                raise ValueError(
                    f"run {seed} has {', '.join(map(str, counts))} pictures by class: give equally many of "
                    f"each of {class_count} classes"
                )
            if counts[0] <= self.neighbours:
                raise ValueError(
                    f"{counts[0]} pictures of a class have no {self.neighbours} neighbours: give "
                    f"{self.neighbours + 1} or more of each class"
                )


@dataclass(frozen=True)
class Grant:
    """What an attack is allowed.

    Args:
        access: What it sees of its target.
        budget: Images that it may send to a black box, in each run.
        mode: What the black box makes of its scores.
        images_per_second: What its owner lets through; None: not known. A model at an address is asked no
            faster; of all others it says what the questions would take.

    Raises:
        ValueError: If the budget, or the rate, allows nothing.
    """

    access: Access = "white-box"
    budget: int = 50_000
    mode: OutputMode = PLAIN
    images_per_second: float | None = None

    def __post_init__(self) -> None:
        if self.budget < 1:
            raise ValueError(f"budget {self.budget}: give 1 image or more")
        if self.images_per_second is not None and not 0 < self.images_per_second < math.inf:
            raise ValueError(f"images_per_second {self.images_per_second}: give more than 0, or None")


WHITE_BOX = Grant()


@dataclass(frozen=True)
class Plan:
    """What is to be done to the target, and by which rule it is judged.

    Args:
        attack: The attack with its settings.
        public: What the attacker has.
        seeds: Seeds of the attack; a firm verdict needs three.
        count_per_class: Reconstructions of each class and seed.
        release_context: Who can reach the target: `open-weights`, `public-api`, `internal`.
        command: The command line that makes this audit again.
        rule: Thresholds of the verdict.
        neighbours: k of precision, recall, density and coverage.
        checkpoint_seconds: Seconds between checkpoints of the attack.
        cache: Folder that runs share for what depends on the public images alone; None: the run's own.
        reference: A model known to leak, the positive control: attacked in the same way, it must be exposed
            before a failure against the target may count.
        grant: What the attack sees of its target.

    Raises:
        AccessDenied: If the attack needs another access.
        ValueError: If there is no seed or one twice, or a class gets too few reconstructions to measure.
    """

    attack: AbstractAttack
    public: Source
    seeds: tuple[int, ...] = (0,)
    count_per_class: int = 200
    release_context: str = "internal"
    command: str = "patchmi audit"
    rule: Rule = field(default_factory=Rule)
    neighbours: int = 3
    checkpoint_seconds: float = 15.0
    cache: Path | None = None
    reference: Target | None = None
    grant: Grant = WHITE_BOX

    def __post_init__(self) -> None:
        self.attack.check_access(self.grant.access)
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: give at least one, and none twice")
        if self.count_per_class <= self.neighbours:
            raise ValueError(
                f"{self.count_per_class} reconstructions of a class have no {self.neighbours} neighbours: "
                f"give count_per_class {self.neighbours + 1} or more"
            )


def check_votes(judges: list[Judge], rule: Rule) -> None:
    """Refuse judges who are fewer than the votes that a hit needs; none at all is another matter.

    Raises:
        ValueError: If so.
    """
    if 0 < len(judges) < rule.votes_needed:
        raise ValueError(
            f"{counted(len(judges), 'judge')}, but a reconstruction needs the votes of "
            f"{rule.votes_needed}: give more judges"
        )
