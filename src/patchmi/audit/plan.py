"""What an audit is given: the private images, the judges, and what the attack may use."""

from dataclasses import dataclass, field

from jaxtyping import Float, Int
from torch import Tensor, nn

from patchmi.attacks import AbstractAttack
from patchmi.data import Source
from patchmi.types import Images, Labels
from patchmi.verdict import Rule


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

    Raises:
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

    def __post_init__(self) -> None:
        if not self.seeds or len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: give at least one, and none twice")
        if self.count_per_class <= self.neighbours:
            raise ValueError(
                f"{self.count_per_class} reconstructions of a class have no {self.neighbours} neighbours: "
                f"give count_per_class {self.neighbours + 1} or more"
            )
