"""What can be asked for: each command is a dataclass, its fields the options, their docstrings the help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

AttackName = Literal[
    "patch-mi",
    "general",
    "generative",
    "variational",
    "plg-mi",
    "deep-inversion",
    "patch-transfer",
    "brep-mi",
    "lokt",
    "mirror",
    "cma-es",
]
DEFAULT_ATTACKS: dict[str, AttackName] = {
    "white-box": "patch-mi",
    "score": "patch-transfer",
    "label": "patch-transfer",
}
"""The attack of each access, where none is named."""
DefenceName = Literal[
    "none",
    "early-stopping",
    "label-smoothing",
    "negative-smoothing",
    "mid",
    "bido-hsic",
    "bido-coco",
    "tl-dmi",
    "rolss",
    "midre",
    "at-at",
    "trap-mid",
    "dp-sgd",
    "rounding",
    "top-k",
    "temperature",
    "noise",
    "label-only",
]
AdaptiveAttackName = Literal["margin", "logit", "student", "views", "no-batch-norm", "ten-times"]
OwnArchitecture = Literal["resnet10", "vgg6", "lenet", "allconv", "convmixer", "mlp"]
Count = Annotated[int, tyro.conf.arg(metavar="COUNT")]
Share = Annotated[float, tyro.conf.arg(metavar="SHARE")]
Rate = Annotated[float | None, tyro.conf.arg(metavar="IMAGES_PER_SECOND")]


@dataclass(frozen=True)
class ModelOptions:
    """The model, and how it is opened."""

    target: str | None = None
    """The model: a file (safetensors, state dict, ONNX), a Hugging Face folder, hub:NAME, timm:NAME, or https://…"""
    architecture: str | None = None
    """What a file of weights belongs to: timm:NAME, patchmi:NAME, or package.module:function."""
    weights: Path | None = None
    """Local weights for timm:NAME."""
    trust_model: bool = False
    """Open TorchScript and torch.export files, which can run code of whoever made them."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width of its images; else as its files say, else as of the private ones."""
    mean: tuple[float, ...] = ()
    """What the model's pixels in [0, 1] are shifted by, a number a channel, if it does not do so itself."""
    std: tuple[float, ...] = ()
    """What they are divided by then."""
    class_names: tuple[str, ...] = ()
    """The classes in the order of the model's answers, where its files do not say."""
    class_count: int | None = None
    """How many there are, where nothing else says it."""
    input_name: str = "images"
    """What a model at an address calls its images."""
    pixel_type: Literal["uint8", "float32"] = "uint8"
    """What an address is sent: numbers from 0 to 255, or from 0 to 1 with --mean and --std taken off."""
    images_per_request: Count = 32
    """Images that an address is sent at a time."""


@dataclass(frozen=True)
class AttackOptions:
    """The attack, and what the attacker has."""

    public: str = "strokes"
    """What the attacker has: strokes, glyphs, leaves, a path to images, or hub:OWNER/NAME."""
    public_count: Count = 15_000
    """Public images."""
    attack: AttackName | None = None
    """The attack; else patch-mi, or patch-transfer of a black box."""
    access: Literal["white-box", "score", "label"] = "white-box"
    """What the attack sees of the model: all, its class scores, or its label alone."""
    budget: Count = 50_000
    """Images that each run of the attack may send to a black box."""
    top_k: int | None = None
    """The black box shows so many of its highest scores."""
    decimals: int | None = None
    """It rounds them to so many digits."""
    noise: float = 0.0
    """It adds normal noise of this deviation to every score, anew each time."""
    temperature: float = 1.0
    """It flattens scores by this temperature."""
    rate: Rate = None
    """Images a second that it answers: the report says how long that takes; an address is asked no faster."""
    recipe: str | None = None
    """Its recipe, where it has several: default or paper-mnist of patch-mi, gmi of generative, flow …"""
    step_count: int | None = None
    """Steps of the attack, instead of the recipe's."""
    setting: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """Any other setting of the attack, as views=false or identity.loss=logit; repeat for more."""
    seeds: Count = 3
    """Runs of the attack; a firm verdict needs 3."""
    count_per_class: Count = 200
    """Reconstructions of each class and run."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Number format of the attack's networks."""


@dataclass(frozen=True)
class Demo(AttackOptions):
    """Audit a classifier of handwritten digits that is trained on the spot, in a few minutes.

    5,000 real digits of MNIST train a target and three judges; the attack sees the target and random strokes.

    Example: patchmi demo --out runs/demo --seeds 3
    """

    seeds: Count = 1
    """Runs of the attack; a firm verdict needs 3."""
    budget: Count = 10_000
    """Images that each run of the attack may send to a black box."""
    out: Path = Path("runs/demo")
    """Run folder; what is in it already is not computed again with --resume."""
    resume: bool = False
    """Go on with the run in the folder; harmless where there is none."""


@dataclass(frozen=True)
class JudgeOptions:
    """The private images, the judges, and what follows from their word."""

    private: str | None = None
    """Images the model was trained on: class folders, parquet, npz, IDX, or hub:OWNER/NAME."""
    held_out: str | None = None
    """Images of the same kind it was not trained on; else the test split of --private, or a share of it."""
    held_out_share: Share = 0.2
    """Share of --private to hold out where there is nothing else."""
    max_bad: Share = 0.01
    """Share of broken images to pass over."""
    send_held_out: bool = False
    """Send held-out images to the model's address to measure its accuracy; else no private one goes there."""
    show_private: bool = False
    """Let the report show held-out images."""
    judge: Annotated[tuple[str, ...], tyro.conf.UseAppendAction] = ()
    """A judge of yours, opened like the target, as SOURCE or ARCHITECTURE@SOURCE; repeat for more."""
    judge_steps: Count = 1500
    """Steps of training for each judge that patchmi trains on the private images."""
    release_context: Literal["open-weights", "public-api", "internal"] = "internal"
    """Who can reach the model."""
    gate: bool = False
    """End with 1 if the verdict is EXPOSED and 3 if it is INCONCLUSIVE."""


@dataclass(frozen=True)
class Audit(JudgeOptions, AttackOptions, ModelOptions):
    """Attack a classifier of yours, judge what comes out beside controls, and report.

    Example: patchmi audit --target model.pt --architecture timm:resnet18 --private data/train

    Example: patchmi audit --target https://HOST/infer --access label --image-shape 1 32 32 --private train
    """

    declared_accuracy: float | None = None
    """The model's accuracy on held-out images as declared: far below, the audit stops: it is misread."""
    positive_control: bool = False
    """If the target is not exposed, attack a model known to leak too: only then can a failure count."""
    track: Literal["tensorboard", "mlflow"] | None = None
    """Follow the attack's losses and the scores with one of the two, in files below --out."""
    out: Path = Path("runs/audit")
    """Run folder; what is in it already is not computed again with --resume."""
    resume: bool = False
    """Go on with the run in the folder; harmless where there is none."""
    config: Path | None = None
    """TOML file with these options, as --init writes it; options beside it take precedence."""
    init: bool = False
    """Write audit.toml with the options given here and stop."""
    dry_run: bool = False
    """Open and check everything, estimate time and memory, and stop."""


@dataclass(frozen=True)
class Attack(AttackOptions, ModelOptions):
    """Rebuild the classes of a classifier, and leave the judging to `patchmi score`.

    Example: patchmi attack --target model.pt --architecture patchmi:resnet10 --image-shape 1 32 32

    Example: patchmi attack --target https://HOST/infer --access label --image-shape 1 32 32 --class-count 10
    """

    track: Literal["tensorboard", "mlflow"] | None = None
    """Follow the attack's losses with one of the two, in files below --out."""
    out: Path = Path("runs/attack")
    """Run folder; what is in it already is not computed again with --resume."""
    resume: bool = False
    """Go on with the run in the folder; harmless where there is none."""
    config: Path | None = None
    """TOML file with these options; options beside it take precedence."""


@dataclass(frozen=True)
class Score(JudgeOptions, ModelOptions):
    """Judge pictures that any tool made, by the same measures and with the same report.

    Example: patchmi score theirs.npz --private data/train --held-out data/test
    """

    reconstructions: Annotated[str | None, tyro.conf.Positional] = None
    """The pictures: safetensors or npz with images and labels, or class folders."""
    made_by: str = "an attack made elsewhere"
    """What the report calls the attack."""
    access: Literal["white-box", "score", "label"] = "white-box"
    """What the attack saw of its target."""
    untrained: str | None = None
    """Pictures of the same tool without its target, a control."""
    public: str | None = None
    """What the attacker had, a control together with --target."""
    public_count: Count = 15_000
    """Public images."""
    rate: Rate = None
    """Images a second that the model's address is sent at most."""
    out: Path = Path("runs/score")
    """Run folder."""
    resume: bool = False
    """Go on with the run in the folder; harmless where there is none."""
    config: Path | None = None
    """TOML file with these options; options beside it take precedence."""


@dataclass(frozen=True)
class Train:
    """Train a classifier on labelled images, as a target to try attacks on.

    Example: patchmi train --private data/train --out model.safetensors

    Example: patchmi train --private data/train --out model.safetensors --defence mid --strength .01
    """

    private: str
    """Labelled images: class folders, parquet, npz, IDX, or hub:OWNER/NAME."""
    out: Path
    """The file of weights to write; `patchmi audit --target` opens it."""
    architecture: OwnArchitecture = "resnet10"
    """One of patchmi's networks."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width; else those of the first image."""
    step_count: Count = 1500
    """Batches of 128 images."""
    seed: int = 0
    """Seed of weights, batches and views."""
    defence: DefenceName = "none"
    """What it is trained with, that it may give less away."""
    strength: float | None = None
    """The defence's one knob; else where it starts."""
    pretraining: str | None = None
    """Labelled images of other classes, for the defence that learns from them first: tl-dmi."""
    validation_share: Share = 0.0
    """Share of --private that chooses the best moment of the training; else the last is taken."""
    max_bad: Share = 0.01
    """Share of broken images to pass over."""


@dataclass(frozen=True)
class Report:
    """Write report.html, report.sarif and junit.xml of a run folder again, from its result.json.

    Example: patchmi report runs/demo
    """

    run: tyro.conf.Positional[Path]
    """The run folder."""


@dataclass(frozen=True)
class Inspect:
    """Show what a source of images holds: counts, sizes, ranges, duplicates, broken files.

    Example: patchmi data inspect data/train --sheet sheet.png
    """

    source: tyro.conf.Positional[str]
    """A path to images, hub:OWNER/NAME, or strokes, glyphs, leaves."""
    split: str = "train"
    """Which part, where the source has parts."""
    sheet: Path | None = None
    """Write some pictures of each class to this PNG file."""


@dataclass(frozen=True)
class Make:
    """Draw procedural public images into a folder of PNG files.

    Example: patchmi data make strokes --count 6000 --out strokes
    """

    source: tyro.conf.Positional[Literal["strokes", "glyphs", "leaves"]]
    """What to draw."""
    out: Path
    """Folder to write to."""
    count: Count = 6000
    """How many."""
    image_size: Count = 32
    """Side in pixels."""
    seed: int = 0
    """Seed of the draw."""


@dataclass(frozen=True)
class Data:
    """Look at a source of images, or draw one.

    Example: patchmi data inspect data/train
    """

    action: Inspect | Make
    """What to do."""


@dataclass(frozen=True)
class SuiteRun:
    """Run what is missing of a suite: targets × attacks × public images × defences × seeds.

    Example: patchmi suite run suites/paper-mnist.toml --out runs/mnist --data ../data --small
    """

    file: tyro.conf.Positional[Path]
    """The suite: a TOML file."""
    out: Path
    """Folder of the suite; what is in it already is not computed again."""
    data: Path | None = None
    """Folder that the suite's data:NAME sources lie in; without it they come from the hub."""
    small: bool = False
    """The suite's small form."""
    jobs: int | None = None
    """Cells at a time; else as many as the processors allow."""
    memory: float | None = None
    """GB that all running cells together may need; else most of what is free."""
    cluster: str | None = None
    """HOST:PORT of a Ray cluster to run the cells on; all its machines must see --out."""


@dataclass(frozen=True)
class Defend:
    """Train networks with and without defences, attack them all, and show what each costs and gives.

    Attacks that are meant to get past a defence are run too. Killed, the same command goes on.

    Example: patchmi defend --target-data data/train --defences mid at-at --strengths 1 --out runs/defend
    """

    target_data: str
    """Labelled images to train on: class folders, parquet, npz, IDX, or hub:OWNER/NAME."""
    defences: tuple[DefenceName | Literal["all"], ...] = ("all",)
    """Which, or all; no defence, early stopping and label smoothing always stand beside them."""
    strengths: Count = 5
    """Strengths of each defence, at most 5; of 1, the one where it starts."""
    seeds: Count = 3
    """Networks trained for each, and attacked."""
    architecture: OwnArchitecture = "resnet10"
    """One of patchmi's networks."""
    image_shape: tuple[int, int, int] | None = None
    """Channels, height and width; else those of the first image."""
    step_count: Count = 900
    """Batches of each training."""
    judge_steps: Count = 1500
    """Steps of training for each judge."""
    flips: bool = False
    """Mirror images in training, as photographs may be."""
    validation_share: Share = 0.1
    """Share of the training images that chooses the best moment of each training."""
    pretraining: str | None = None
    """Labelled images of other classes, for the defence that learns from them first: tl-dmi."""
    public: str = "strokes"
    """What the attacker has: strokes, glyphs, leaves, a path to images, or hub:OWNER/NAME."""
    public_count: Count = 15_000
    """Public images."""
    attack_steps: int | None = None
    """Steps of the attacks, instead of their recipe's."""
    adaptive: tuple[AdaptiveAttackName, ...] = ()
    """Attacks meant to get past defences; else all that the defences ask for."""
    budget: Count = 50_000
    """Images that an attack may send to a black box."""
    count_per_class: Count = 100
    """Reconstructions of each class."""
    out: Path = Path("runs/defend")
    """Folder; what is in it already is not computed again."""
    jobs: int | None = None
    """Cells at a time; else as many as the processors allow."""
    memory: float | None = None
    """GB that all running cells together may need; else most of what is free."""
    cluster: str | None = None
    """HOST:PORT of a Ray cluster to run the cells on; all its machines must see --out."""
    dry_run: bool = False
    """Say how many networks, attacks and rows there are, and stop."""


@dataclass(frozen=True)
class SuiteReport:
    """Write suite.html again, also of a suite that is half done.

    Example: patchmi suite report runs/mnist
    """

    out: tyro.conf.Positional[Path]
    """Folder of the suite."""


@dataclass(frozen=True)
class Suite:
    """Many audits and one table.

    Example: patchmi suite run suites/paper-mnist.toml --out runs/mnist --data ../data --small
    """

    action: (
        Annotated[SuiteRun, tyro.conf.subcommand("run")]
        | Annotated[SuiteReport, tyro.conf.subcommand("report")]
    )
    """What to do."""


Options = Demo | Audit | Attack | Score | Train | Defend | Report | Data | Suite
