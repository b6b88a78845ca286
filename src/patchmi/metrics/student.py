"""Student accuracy: how much of the private data a network learns from reconstructions alone.

A fresh classifier is trained on reconstructions and tested on real held-out images, after the classification
accuracy score (S. Ravuri, O. Vinyals, NeurIPS 2019). Pictures that only fool a classifier teach nothing, and
neither do many copies of one picture: it is patchmi's headline for quality. It is no proof of likeness: a
student also learns from images of nothing what function the target is, if the target labels them.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from patchmi.machine import seeded
from patchmi.metrics.accuracy import class_means
from patchmi.metrics.features import predict_logits
from patchmi.networks import ARCHITECTURES
from patchmi.target import Training, train_classifier
from patchmi.types import Images, Labels, Progress, silent

STUDENT = "allconv"
"""The student's architecture: none that an attack draws its pictures against."""
STUDENT_TRAINING = Training(step_count=200, learning_rate=5e-3)
"""How every student is trained: fixed, so that accuracies can be compared."""


def student_accuracy(
    *,
    reconstructions: Images,
    labels: Labels,
    held_out_images: Float[Tensor, "held_out channels height width"],
    held_out_labels: Int[Tensor, " held_out"],
    class_count: int,
    training: Training = STUDENT_TRAINING,
    seed: int = 0,
    progress: Progress = silent,
) -> Float[Tensor, " classes"]:
    """Accuracy on each class's real held-out images of a student trained on reconstructions only.

    Args:
        reconstructions: Images in [0, 1].
        labels: The classes they are meant to show.
        held_out_images: Private images that the target was not trained on.
        held_out_labels: Their classes; every class must be there.
        class_count: Number of classes.
        training: How the student is trained.
        seed: Of its weights, batches and views.
        progress: How to show how far it is.
    """
    with seeded(seed):
        student = ARCHITECTURES[STUDENT](class_count=class_count, channel_count=reconstructions.shape[1])
    train_classifier(
        student,
        images=reconstructions,
        labels=labels,
        training=training,
        seed=seed,
        progress=progress,
        description="Training a student on the reconstructions",
    )
    hits = predict_logits(student, held_out_images).argmax(dim=1) == held_out_labels
    return class_means(hits, labels=held_out_labels, classes=torch.arange(class_count))
