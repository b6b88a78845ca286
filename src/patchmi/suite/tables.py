"""The tables of a suite file: targets, attacks, public images, and what is drawn of them."""

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from patchmi.attacks import ATTACKS, AbstractAttack, choose_attack
from patchmi.audit import Grant
from patchmi.data import PROCEDURAL
from patchmi.defences import AbstractDefence, NoDefence, OutputDefence, choose_defence, is_bypassed
from patchmi.types import Access

DATA = "data:"
"""Before the name of a folder below `--data`."""
UNUSED = "unused:"
"""Before the name of a target, for training images that its `private_count` left out."""
_PREFIXES = ("hub:", "timm:")


@dataclass(frozen=True)
class SuiteTarget:
    """A classifier to attack, finished or trained on the spot, and who judges.

    Args:
        private: Images it is trained on: `data:NAME`, or what `patchmi audit --private` takes.
        hub: Taken instead of a `data:` source where no data folder is given.
        image_shape: Channels, height and width; may be left out for a finished model.
        held_out_share: Share of the private images to hold out where there is no test split.
        class_count: Only so many of the classes, evenly spread over all of them in their order; None: all.
        private_count: At most so many training images, as many of each class; None: all.
        architecture: A name in `ARCHITECTURES` to train, or what a finished model's weights belong to.
        width: Of the network to train; None: the architecture's own.
        step_count: Batches of its training.
        flips: Whether its training, and that of its judges, may mirror images.
        model: A finished model, opened as `patchmi audit --target` does; None: one is trained.
        class_names: Of a finished model, where its files do not say.
        mean: What a finished model's pixels are shifted by, where its files do not say.
        std: What they are divided by then.
        judge_steps: Batches of each judge's training.
        disjoint_share: Share of the training images that target and judges do not get, for one more judge.
        disjoint: Labelled images of the same classes from elsewhere, for that judge, instead of such a share.
        show_private: Whether pages may show held-out images.
        seed: Of the network's training; targets that differ in it alone repeat one another, and share judges.
        validation_share: Share of the training images that choose among the moments of its training.
        pretraining: Labelled images of other classes, for the defences that learn from them first.
    """

    private: str
    hub: str | None = None
    image_shape: tuple[int, int, int] | None = None
    held_out_share: float = 0.2
    class_count: int | None = None
    private_count: int | None = None
    architecture: str | None = None
    width: int | None = None
    step_count: int = 400
    flips: bool = False
    model: str | None = None
    class_names: tuple[str, ...] = ()
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    judge_steps: int = 1500
    disjoint_share: float = 0.0
    disjoint: str | None = None
    show_private: bool = False
    seed: int = 0
    validation_share: float = 0.0
    pretraining: str | None = None


@dataclass(frozen=True)
class SuitePublic:
    """What an attacker has: a source, and how many images of it.

    Args:
        source: As `--public` takes it, `data:NAME`, or `unused:TARGET`: images of the target's own kind that
            neither it nor any judge was trained on, without their labels.
        hub: Taken instead of a `data:` source where no data folder is given.
        count: At most so many.
    """

    source: str
    hub: str | None = None
    count: int = 15_000


@dataclass(frozen=True)
class SuiteAttack:
    """An attack of `ATTACKS`, and what it gets.

    Args:
        attack: Its name.
        settings: What is set in it.
        publics: The public sets that it gets; () is all.
        access: What it sees of its targets; None: what it is meant for.
        budget: Images that a run may send to a black box.
        adaptive: What it is meant to get past: one of `ADAPTIVE_ATTACKS`; None: nothing in particular.
        defences: Names in `DEFENCES` of those that it is run against; () is all.
    """

    attack: str
    settings: dict[str, Any]
    publics: tuple[str, ...] = ()
    access: Access | None = None
    budget: int = 50_000
    adaptive: str | None = None
    defences: tuple[str, ...] = ()

    def made(self) -> AbstractAttack:
        """The attack itself."""
        return choose_attack(self.attack, self.settings)

    def grant(self, defence: "SuiteDefence | None" = None) -> Grant:
        """What it is allowed, and what a defence of the output leaves of the answers."""
        grant = Grant(self.access or ATTACKS[self.attack].accesses[0], self.budget)
        made = None if defence is None else defence.made()
        if not isinstance(made, OutputDefence) or grant.access == "white-box":
            return grant
        return replace(grant, access="label" if made.hides_scores else grant.access, mode=made.mode)

    def number(self, setting: str) -> float | None:
        """What a setting is, `identity.feature_weight` in a group, or the budget; None if it is no number."""
        if setting == "budget":
            return float(self.budget)
        value: Any = self.made()
        for part in setting.split("."):
            value = getattr(value, part, None)
        return float(value) if type(value) in (int, float) else None


@dataclass(frozen=True)
class SuiteDefence:
    """A defence of `DEFENCES`, and how strong it is.

    Args:
        defence: Its name; a file may leave it out where the entry has the same.
        strength: Its one knob; None: where it starts.
    """

    defence: str
    strength: float | None = None

    def made(self) -> AbstractDefence:
        """The defence itself."""
        return choose_defence(self.defence, self.strength)

    def changes_training(self) -> bool:
        """Whether the network is another one than without it."""
        return not isinstance(self.made(), NoDefence | OutputDefence)


UNDEFENDED = SuiteDefence("none")


@dataclass(frozen=True)
class Published:
    """Scores of a paper, shown beside those of the same cell."""

    attack: str
    target: str
    scores: dict[str, float]
    public: str | None = None
    note: str = ""


@dataclass(frozen=True)
class Curve:
    """A figure: scores of some attacks over one of their settings."""

    title: str
    along: str
    attacks: tuple[str, ...]
    scores: tuple[str, ...]


@dataclass(frozen=True)
class Origin:
    """What a suite's file does not say: folders, the command, the small form's note if it was asked for."""

    folder: str = "."
    """Other paths in the file count from here."""
    data: str | None = None
    small_note: str | None = None
    command: str = "patchmi suite run"


@dataclass(frozen=True)
class Suite:
    """Every combination of targets, attacks, public sets, defences and seeds."""

    title: str
    targets: dict[str, SuiteTarget]
    public: dict[str, SuitePublic]
    attacks: dict[str, SuiteAttack]
    description: str = ""
    seeds: int = 3
    count_per_class: int = 200
    threads: int = 1
    memory_gb: float = 2.0
    gpus: float = 0.0
    checkpoint_seconds: float = 15.0
    defences: dict[str, SuiteDefence] = field(default_factory=lambda: {"none": UNDEFENDED})
    published: tuple[Published, ...] = ()
    curves: tuple[Curve, ...] = ()
    origin: Origin = field(default_factory=Origin)

    def locate(self, source: str) -> str:
        """A source as it is opened, wherever this process works."""
        if source in PROCEDURAL or source.startswith(_PREFIXES):
            return source
        if source.startswith(DATA):
            return str(Path(self.origin.data or "") / source.removeprefix(DATA))
        return str(Path(self.origin.folder) / Path(source).expanduser())

    def rows(self) -> Iterator[tuple[str, str, str, str]]:
        """Target, attack, public set and defence of every row.

        What needs no public images has one set. What sees the weights has no row beside a defence of the
        output, which stands between users and the network, and not between it and this attack.
        """
        for target in self.targets:
            for name, attack in self.attacks.items():
                publics = attack.publics or tuple(self.public)
                for public in publics if ATTACKS[attack.attack].uses_public else publics[:1]:
                    for defence, listed in self.defences.items():
                        is_wanted = not attack.defences or listed.defence in attack.defences
                        if is_wanted and not is_bypassed(listed.made(), attack.grant().access):
                            yield target, name, public, defence

    def first_alike(self, name: str) -> str:
        """The first target with the same private images, judges and shape: it may be this one."""

        def judged(target: SuiteTarget) -> SuiteTarget:
            alike = replace(target, seed=0, validation_share=0.0, pretraining=None)
            if target.model is not None:
                return alike
            return replace(alike, architecture=None, width=None, step_count=0)

        wanted = judged(self.targets[name])
        return next(one for one, target in self.targets.items() if judged(target) == wanted)

    def seeds_of(self, target: str) -> range:
        """Seeds of the attack's runs on a target: those of repeated targets differ."""
        first = self.targets[target].seed * self.seeds
        return range(first, first + self.seeds)
