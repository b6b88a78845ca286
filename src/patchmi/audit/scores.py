"""What judges, features and students say of the reconstructions and of each control, with intervals."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi.audit.plan import Judge, Private
from patchmi.metrics import (
    Estimate,
    class_means,
    clopper_pearson,
    cluster_interval,
    confidence,
    confidence_floor,
    consensus_hits,
    extract_features,
    frechet_distance,
    has_features,
    neighbour_ratio,
    prdc_by_class,
    predict_logits,
    student_accuracy,
    top_k_hits,
    worst_class,
)
from patchmi.types import Features, Images, Labels, Progress, Snapshot

Rates = Float[Tensor, "seeds classes"]

SCORES = (
    "judge_top1",
    "consensus_top1",
    "judge_top5",
    "confidence",
    "worst_class_top1",
    "target_top1",
    "precision",
    "recall",
    "density",
    "coverage",
    "frechet_distance",
    "student_accuracy",
)
"""The contract's scores, in the order in which a result holds them."""
CLASS_SCORES = (
    "judge_top1",
    "consensus_top1",
    "confidence",
    "target_top1",
    "precision",
    "recall",
    "density",
    "coverage",
    "nearest_ratio",
)
"""The same of a class."""


@dataclass(frozen=True)
class Arm:
    """Images that the judges are shown, with the class each stands for: the attack's, or a control's."""

    images: Images
    labels: Labels
    seeds: Labels

    def rates(self, values: Tensor, class_count: int) -> Rates:
        """Mean of one value an image, for each seed and class."""
        classes = torch.arange(class_count)
        own = [self.seeds == seed for seed in self.seeds.unique()]
        return torch.stack(
            [class_means(values[seed], labels=self.labels[seed], classes=classes) for seed in own]
        )


@dataclass(frozen=True)
class JudgedArm:
    """What the judges answered to an arm."""

    arm: Arm
    logits: Float[Tensor, "judges n classes"]
    features: Features | None
    """Of the judge whose features are compared; None if no judge has features."""
    votes_needed: int
    floors: Float[Tensor, " judges"] | None = None
    """Each judge's least confidence for a vote to count; None counts every vote."""

    def rates(self, values: Tensor) -> Rates:
        """Mean of one value an image, for each seed and class."""
        return self.arm.rates(values, self.logits.shape[2])

    def top_k(self, k: int = 1) -> Float[Tensor, "judges seeds classes"]:
        """Each judge's top-k accuracy for each seed and class."""
        return torch.stack([self.rates(top_k_hits(logits, self.arm.labels, k)) for logits in self.logits])

    def confidence(self) -> Float[Tensor, " n"]:
        """Probability of the intended class, averaged over judges."""
        return torch.stack([confidence(logits, self.arm.labels) for logits in self.logits]).mean(dim=0)

    def consensus(self) -> Rates:
        """Share of images to which enough judges give the intended class, for each seed and class."""
        return self.rates(
            consensus_hits(self.logits, self.arm.labels, needed=self.votes_needed, floors=self.floors)
        )


def judge_arm(
    arm: Arm, judges: list[Judge], *, votes_needed: int, floors: Float[Tensor, " judges"] | None = None
) -> JudgedArm:
    """Show an arm's images to every judge."""
    extractor = find_extractor(judges, arm.images)
    answers = [
        extract_features(judge.model, arm.images)
        if judge is extractor
        else (None, predict_logits(judge.model, arm.images))
        for judge in judges
    ]
    features = next((features for features, _ in answers if features is not None), None)
    return JudgedArm(arm, torch.stack([logits for _, logits in answers]), features, votes_needed, floors)


def find_extractor(judges: list[Judge], images: Images) -> Judge | None:
    """The first judge that ends in a linear layer, whose input is a space to compare pictures in."""
    return next((judge for judge in judges if has_features(judge.model, images)), None)


def confidence_floors(held_out: JudgedArm) -> Float[Tensor, " judges"]:
    """How sure each judge must be of its answer: as sure as it is of 95 % of real held-out images."""
    return torch.tensor([confidence_floor(logits) for logits in held_out.logits])


def arm_scores(judged: JudgedArm) -> dict[str, Estimate]:
    """The two rates that every arm is compared by."""
    return {
        "judge_top1": cluster_interval(judged.top_k().mean(dim=0)),
        "consensus_top1": cluster_interval(judged.consensus()),
    }


@dataclass(frozen=True)
class Fidelity:
    """How near the reconstructions come to the private distribution, per seed and class."""

    prdc: Float[Tensor, "seeds classes 4"]
    """Precision, recall, density, coverage."""
    frechet: Estimate
    nearest_ratio: Float[Tensor, " classes"]
    """Median over images of the distance to train over the distance to held-out."""


def measure_fidelity(
    attacked: JudgedArm,
    private: Private,
    extractor: Judge,
    *,
    neighbours: int,
) -> Fidelity:
    """Compare reconstructions with private images in the features of one judge.

    As many real images of each class are used as there are reconstructions of it, or all there are.

    Args:
        attacked: The reconstructions, judged, with the features of `extractor`.
        private: Real images.
        extractor: The judge whose features are compared.
        neighbours: k of precision, recall, density and coverage.
    """
    assert attacked.features is not None
    train, _ = extract_features(extractor.model, private.train_images)
    held_out, _ = extract_features(extractor.model, private.held_out_images)
    arm, class_count = attacked.arm, len(private.class_names)
    classes = torch.arange(class_count)
    seeds = [arm.seeds == seed for seed in arm.seeds.unique()]
    shown_count = len(arm.labels) // (class_count * len(seeds))
    first = torch.cat(
        [(private.train_labels == label).nonzero()[:shown_count, 0] for label in range(class_count)]
    )
    clouds = torch.stack(
        [
            prdc_by_class(
                real=train[first],
                real_labels=private.train_labels[first],
                fake=attacked.features[seed],
                fake_labels=arm.labels[seed],
                classes=classes,
                neighbours=neighbours,
            )
            for seed in seeds
        ]
    )
    ratios = torch.stack(
        [
            neighbour_ratio(
                reconstructions=attacked.features[arm.labels == label],
                train=train[private.train_labels == label],
                held_out=held_out[private.held_out_labels == label],
            ).ratio.median()
            for label in range(class_count)
        ]
    )
    distance = _frechet_interval(
        real=train[first],
        real_labels=private.train_labels[first],
        fake=attacked.features,
        fake_labels=arm.labels,
    )
    return Fidelity(clouds, distance, ratios)


def measure_students(arm: Arm, private: Private, *, progress: Progress) -> Rates:
    """Accuracy on held-out images of a student of each run's reconstructions.

    Args:
        arm: The reconstructions.
        private: For the held-out images.
        progress: How to show how far the students are.
    """
    seeds = [arm.seeds == seed for seed in arm.seeds.unique()]
    return torch.stack(
        [
            student_accuracy(
                reconstructions=arm.images[seed],
                labels=arm.labels[seed],
                held_out_images=private.held_out_images,
                held_out_labels=private.held_out_labels,
                class_count=len(private.class_names),
                seed=number,
                progress=progress,
            )
            for number, seed in enumerate(seeds)
        ]
    )


def _frechet_interval(
    *,
    real: Float[Tensor, "real features"],
    real_labels: Int[Tensor, " real"],
    fake: Float[Tensor, "fake features"],
    fake_labels: Int[Tensor, " fake"],
) -> Estimate:
    """The Fréchet distance with a jackknife interval: each class is left out once (B. Efron, 1982)."""
    value = frechet_distance(real=real, fake=fake)
    classes = fake_labels.unique()
    left_out = torch.tensor(
        [
            frechet_distance(real=real[real_labels != label], fake=fake[fake_labels != label])
            for label in classes
        ]
    )
    n = len(classes)
    error = float(((n - 1) / n * (left_out - left_out.mean()).square().sum()).sqrt())
    return Estimate(value=value, low=max(0.0, value - 1.96 * error), high=value + 1.96 * error, n=n)


def attack_scores(
    attacked: JudgedArm | None,
    target_rates: Rates | None,
    fidelity: Fidelity | None,
    students: Rates | None,
) -> dict[str, Estimate | None]:
    """Every score of the contract for the reconstructions; None where what it takes is not there.

    Args:
        attacked: The reconstructions, judged; None without judges.
        target_rates: Share of them that the target takes for their class; None without target.
        fidelity: None without private images, or without a judge that has features.
        students: Accuracies of students; None without private images.
    """
    scores: dict[str, Estimate | None] = dict.fromkeys(SCORES)
    if attacked is not None:
        scores |= {
            **arm_scores(attacked),
            "judge_top5": cluster_interval(attacked.top_k(5).mean(dim=0)),
            "confidence": cluster_interval(attacked.rates(attacked.confidence())),
            "worst_class_top1": _worst_class_top1(attacked),
        }
    if target_rates is not None:
        scores["target_top1"] = cluster_interval(target_rates)
    if fidelity is not None:
        clouds = fidelity.prdc.unbind(dim=2)
        scores |= {
            "precision": cluster_interval(clouds[0]),
            "recall": cluster_interval(clouds[1]),
            "density": cluster_interval(clouds[2], bounds=(0.0, math.inf)),
            "coverage": cluster_interval(clouds[3]),
            "frechet_distance": fidelity.frechet,
        }
    if students is not None:
        scores["student_accuracy"] = cluster_interval(students)
    return scores


def unselected_scores(judged: JudgedArm) -> dict[str, Estimate]:
    """What judges say of pictures that the attack did not choose."""
    return {**arm_scores(judged), "worst_class_top1": _worst_class_top1(judged)}


def _worst_class_top1(judged: JudgedArm) -> Estimate:
    top1 = judged.top_k().mean(dim=0)
    image_count = len(judged.arm.labels) // top1.numel()
    return worst_class(top1, classes=torch.arange(top1.shape[1]), image_count=image_count).rate


def class_scores(
    attacked: JudgedArm | None,
    target_rates: Rates | None,
    fidelity: Fidelity | None,
    *,
    label: int,
    image_count: int,
) -> dict[str, Estimate | float | None]:
    """The scores of one class, None where what they take is not there; rates with exact intervals.

    Args:
        attacked: The reconstructions, judged.
        target_rates: Share of them that the target takes for their class.
        fidelity: How near they come to the private images.
        label: The class.
        image_count: Reconstructions of it, of all seeds.
    """
    scores: dict[str, Estimate | float | None] = dict.fromkeys(CLASS_SCORES)
    if attacked is not None:
        top1 = attacked.top_k().mean(dim=(0, 1))[label]
        scores["judge_top1"] = share_of(float(top1), image_count)
        scores["consensus_top1"] = share_of(float(attacked.consensus().mean(dim=0)[label]), image_count)
        scores["confidence"] = float(attacked.rates(attacked.confidence()).mean(dim=0)[label])
    if target_rates is not None:
        scores["target_top1"] = share_of(float(target_rates.mean(dim=0)[label]), image_count)
    if fidelity is not None:
        names = ("precision", "recall", "density", "coverage")
        scores |= dict(zip(names, fidelity.prdc.mean(dim=0)[label].tolist(), strict=True))
        ratio = float(fidelity.nearest_ratio[label])
        scores["nearest_ratio"] = ratio if math.isfinite(ratio) else None
    return scores


def nearest_ratio_interval(ratios: Float[Tensor, " classes"]) -> Estimate | None:
    """The mean ratio of the classes; None where copies of held-out images make one infinite."""
    return cluster_interval(ratios[None], bounds=(0.0, math.inf)) if ratios.isfinite().all() else None


def share_of(share: float, count: int) -> Estimate:
    """A share of `count` images with its exact (Clopper-Pearson) interval, rounded to a count."""
    exact = clopper_pearson(round(share * count), count)
    return Estimate(value=share, low=min(exact.low, share), high=max(exact.high, share), n=count)


def snapshot_scores(
    snapshot: Snapshot, judges: list[Judge], target_logits: Tensor
) -> dict[str, float | None]:
    """Judges' and target's opinion of what an attack would have answered at one step."""
    target_top1 = top_k_hits(target_logits, snapshot.labels).double().mean()
    scores: dict[str, float | None] = dict.fromkeys(("judge_top1", "worst_class_top1"))
    if judges:
        arm = Arm(snapshot.images, snapshot.labels, torch.zeros_like(snapshot.labels))
        top1 = judge_arm(arm, judges, votes_needed=1).top_k().mean(dim=(0, 1))
        scores = {"judge_top1": float(top1.mean()), "worst_class_top1": float(top1.min())}
    return {**scores, "target_top1": float(target_top1)}
