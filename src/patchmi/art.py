"""The attacks by ART's rules: an `InferenceAttack` of the Adversarial Robustness Toolbox.

Needs `pip install 'patchmi[art]'`; nothing else in patchmi imports ART.
"""

import logging
from typing import Any

import numpy as np
import torch

try:
    from art.attacks.attack import InferenceAttack
    from art.estimators.classification.classifier import ClassifierMixin
    from art.estimators.pytorch import PyTorchEstimator
except ImportError:
    raise ImportError("patchmi.art needs ART: pip install 'patchmi[art]'") from None
from tqdm import tqdm

from patchmi.attacks import AbstractAttack, PatchMI
from patchmi.data import load_public
from patchmi.target import Target, WhiteBox, probe_target
from patchmi.target.adapters import as_target
from patchmi.types import Images

logger = logging.getLogger(__name__)


class PatchMIInference(InferenceAttack):
    """Model inversion of a PyTorch classifier: draws images that show its classes.

    Every class is attacked together, so asking for one takes as long as asking for all. Defences around the
    classifier are bypassed; a warning in the log names them.

    Args:
        estimator: ART's `PyTorchClassifier`, with `clip_values`.
        attack: Any attack of patchmi; Patch-MI by its default recipe if None.
        public: What the attacker has: `strokes`, `glyphs`, `leaves`, a path, or an N×C×H×W array within the
            classifier's `clip_values`.
        public_count: Images to draw or take, where `public` is a text.
        count_per_class: Images for each class asked for.
        seed: Same seed, machine and thread count: same images.
        verbose: Whether to show how far the attack is.

    Raises:
        ValueError: A parameter is of another type or range, or no target can be made of the estimator.
    """

    attack_params = [  # noqa: RUF012 - as ART has it
        *InferenceAttack.attack_params,
        "attack",
        "public",
        "public_count",
        "count_per_class",
        "seed",
        "verbose",
    ]
    _estimator_requirements = (PyTorchEstimator, ClassifierMixin)

    def __init__(
        self,
        estimator: Any,
        attack: AbstractAttack | None = None,
        public: str | np.ndarray = "strokes",
        *,
        public_count: int = 15_000,
        count_per_class: int = 1,
        seed: int = 0,
        verbose: bool = True,
    ) -> None:
        super().__init__(estimator)
        self.attack = attack or PatchMI()
        self.public = public
        self.public_count = public_count
        self.count_per_class = count_per_class
        self.seed = seed
        self.verbose = verbose
        self._check_params()

    def infer(self, x: np.ndarray | None = None, y: np.ndarray | None = None, **kwargs: Any) -> np.ndarray:
        """Draw images that show the classes asked for.

        Args:
            x: The attacker's images instead of `public`: N×C×H×W within `clip_values`.
            y: The classes asked for, as labels or one-hot; each class once if None.
            kwargs: None is known.

        Returns:
            For each entry of `y` in turn `count_per_class` images, float32, N×C×H×W within `clip_values`. A
            class that is asked for again gets other images.

        Raises:
            ValueError: `x` or `y` does not fit the classifier.
        """
        if kwargs:
            raise ValueError(f"infer takes x and y, not {', '.join(kwargs)}")
        names = tuple(str(label) for label in range(self.estimator.nb_classes))
        target, findings = as_target(self.estimator, class_names=names, name="the estimator")
        target, observations = probe_target(target)
        for finding in findings:
            logger.warning(finding)
        for observation in observations:
            logger.info(observation)
        asked = _labels(y, target.class_count)
        # How often each had been asked for before.
        rounds = np.array([(asked[:position] == label).sum() for position, label in enumerate(asked)])
        made = self.attack(
            WhiteBox(target),
            self._public_images(self.public if x is None else x, target),
            count_per_class=self.count_per_class * (int(rounds.max()) + 1),
            seed=self.seed,
            progress=lambda steps, description: tqdm(steps, description, disable=not self.verbose),
        )
        by_round = made.images.numpy().reshape(
            target.class_count, -1, self.count_per_class, *target.image_shape
        )
        low, high = self.estimator.clip_values
        return low + by_round[asked, rounds].reshape(-1, *target.image_shape) * (high - low)

    def _public_images(self, public: str | np.ndarray, target: Target) -> Images:
        """The attacker's images, in [0, 1]."""
        if isinstance(public, str):
            return load_public(
                public, image_shape=target.image_shape, count=self.public_count, seed=self.seed
            ).images
        low, high = self.estimator.clip_values
        return torch.from_numpy(np.asarray((public - low) / (high - low), dtype=np.float32))

    def _check_params(self) -> None:
        if not isinstance(self.attack, AbstractAttack):
            raise ValueError(f"attack {self.attack!r}: give one of patchmi's attacks, as PatchMI()")
        if not isinstance(self.public, str) and np.ndim(self.public) != 4:
            raise ValueError("public: give strokes, glyphs, leaves, a path, or an N×C×H×W array")
        for name in ("public_count", "count_per_class"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise ValueError(f"{name} {getattr(self, name)!r}: give a whole number, 1 or more")
        if not isinstance(self.seed, int):
            raise ValueError(f"seed {self.seed!r}: give a whole number")


def _labels(y: np.ndarray | None, class_count: int) -> np.ndarray:
    """The classes asked for, as labels."""
    if y is None:
        return np.arange(class_count)
    labels = y.argmax(axis=1) if y.shape[1:] == (class_count,) else y
    if labels.shape[1:] not in ((), (1,)) or not np.isin(labels, np.arange(class_count)).all() or len(y) == 0:
        raise ValueError(f"y: give labels from 0 to {class_count - 1}, or rows of {class_count} numbers")
    return labels.reshape(-1).astype(np.int64)
