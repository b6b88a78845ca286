"""The pictures of the report are chosen by rule."""

import json

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.numpy import load_file

from patchmi.audit.evidence import RANKS, SAMPLE_COUNT
from patchmi.metrics import confidence, extract_features
from patchmi.report.evidence import check_evidence

Arrays = dict[str, np.ndarray]


def evidence_of(audited) -> Arrays:
    return load_file(audited.folder / "evidence.safetensors")


def metadata_of(audited) -> dict[str, str]:
    with safe_open(audited.folder / "evidence.safetensors", framework="numpy") as file:
        return file.metadata()


def sureness(audited, images: np.ndarray, label: int) -> torch.Tensor:
    """The judges' mean confidence that 8-bit images show the class."""
    pictures = torch.from_numpy(images).float() / 255
    labels = torch.full((len(images),), label)
    answers = [extract_features(judge.model, pictures)[1] for judge in audited.judges]
    return torch.stack([confidence(logits, labels) for logits in answers]).mean(dim=0)


@pytest.mark.parametrize("name", ["revealing", "harmless", "brief"])
def test_reconstructions_are_shown_at_fixed_ranks_of_the_judges_mean_confidence(name, request):
    audited = request.getfixturevalue(name)
    made = load_file(audited.folder / "reconstructions.safetensors")
    shown = evidence_of(audited)["reconstructions"]
    assert shown.shape == (4, len(RANKS), 1, 16, 16)
    assert json.loads(metadata_of(audited)["ranks"]) == [0, 25, 50, 75, 100]
    for label in range(4):
        images = made["images"][made["labels"] == label]
        sure = [float(value) for value in sureness(audited, images, label)]
        order = sorted(range(len(images)), key=lambda at, sure=sure: -sure[at])
        expected = [images[order[round(rank * (len(order) - 1) / 100)]] for rank in (0, 25, 50, 75, 100)]
        assert np.array_equal(shown[label], np.stack(expected))


def test_the_best_stands_first_and_the_worst_last(revealing):
    shown = evidence_of(revealing)["reconstructions"]
    for label in range(4):
        sure = sureness(revealing, shown[label], label)
        assert sure.tolist() == sorted(sure.tolist(), reverse=True)
        # One held-out image of each class bears a wrong label.
        assert sure[0] > 0.9 > 0.1 > sure[-1]


def test_beside_each_stands_the_public_image_at_the_least_distance_of_pixels(brief):
    arrays = evidence_of(brief)
    public = brief.plan.public.images.double().numpy()
    for row, neighbours in zip(arrays["reconstructions"], arrays["nearest_public"], strict=True):
        for image, neighbour in zip(row, neighbours, strict=True):
            distances = [np.square(image / 255 - other).sum() for other in public]
            (found,) = (
                at for at, other in enumerate(public) if np.array_equal(np.rint(255 * other), neighbour)
            )
            assert distances[found] == pytest.approx(min(distances), rel=1e-4)


@pytest.mark.parametrize("name", ["untrained", "noise"])
def test_the_arms_that_are_not_ranked_show_their_first_pictures(brief, name):
    assert evidence_of(brief)[name].shape == (4, SAMPLE_COUNT, 1, 16, 16)
    drawn = load_file(brief.folder / "controls/untrained.safetensors")
    first = [drawn["images"][drawn["labels"] == label][:SAMPLE_COUNT] for label in range(4)]
    assert np.array_equal(evidence_of(brief)["untrained"], np.stack(first))


def test_the_history_shows_the_first_picture_of_each_class_at_each_snapshot(brief):
    made = load_file(brief.folder / "attack/seed-4.safetensors")
    history = evidence_of(brief)["history"]
    assert json.loads(metadata_of(brief)["history_steps"]) == [0, 1, 2, 3]
    assert history.shape == (4, 4, 1, 16, 16)
    for number in range(4):
        images, labels = made[f"snapshot-{number}-images"], made[f"snapshot-{number}-labels"]
        assert np.array_equal(history[number], np.stack([images[labels == label][0] for label in range(4)]))


def test_an_attack_without_snapshots_has_no_history(harmless):
    assert "history" not in evidence_of(harmless)
    assert "history_steps" not in metadata_of(harmless)


def test_held_out_images_are_there_only_if_they_may_be_shown(revealing, harmless):
    private = revealing.private
    first = [private.held_out_images[private.held_out_labels == label][:SAMPLE_COUNT] for label in range(4)]
    expected = (torch.stack(first) * 255).round().byte().numpy()
    assert np.array_equal(evidence_of(revealing)["held_out"], expected)
    assert "held_out" not in evidence_of(harmless)


@pytest.mark.parametrize("name", ["revealing", "harmless", "brief"])
def test_the_report_accepts_the_evidence(name, request):
    audited = request.getfixturevalue(name)
    check_evidence(audited.result, evidence_of(audited), metadata_of(audited))
