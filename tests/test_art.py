"""Our attacks by ART's rules, with ART really installed."""

import dataclasses
import subprocess
import sys
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from patchmi.attacks import RECIPES, ClassPatchScale, PatchMI
from patchmi.target import Target, WhiteBox

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # on import, of libraries that ART finds and does not find
    pytest.importorskip("art")
    from art.attacks.attack import InferenceAttack
    from art.estimators.classification import PyTorchClassifier, SklearnClassifier
    from art.exceptions import EstimatorError

    from patchmi.art import PatchMIInference

SHAPE = (1, 16, 16)
RECIPE = dataclasses.replace(
    RECIPES["default"], generator_width=4, scales=(ClassPatchScale(width=8),), candidate_factor=1.0
)
ATTACK = PatchMI(RECIPE, step_count=3, students=False, weights=False)


@pytest.fixture(scope="module")
def model(fit: Callable[..., nn.Module]) -> nn.Module:
    return fit("resnet10", width=4)


@pytest.fixture(scope="module")
def public(blobs: Callable[..., torch.Tensor]) -> torch.Tensor:
    return blobs(40, seed=3)


def wrap(model: nn.Module, **options: Any) -> PyTorchClassifier:
    options = {"clip_values": (0, 1), **options}
    return PyTorchClassifier(
        model, nn.CrossEntropyLoss(), input_shape=SHAPE, nb_classes=4, device_type="cpu", **options
    )


def attack_on(estimator: PyTorchClassifier, public: Any, **options: Any) -> PatchMIInference:
    return PatchMIInference(estimator, ATTACK, public, **{"verbose": False, **options})


@pytest.fixture(scope="module")
def ours(model: nn.Module, public: torch.Tensor) -> Callable[..., np.ndarray]:
    """What the attack draws without ART: classes, images of each, pixels."""

    def draw(count_per_class: int, *, seed: int = 0, images: torch.Tensor = public) -> np.ndarray:
        door = WhiteBox(Target(model, class_names=("0", "1", "2", "3"), image_shape=SHAPE))
        made = ATTACK(door, images, count_per_class=count_per_class, seed=seed)
        return made.images.numpy().reshape(4, count_per_class, *SHAPE)

    return draw


def test_it_is_an_inference_attack_and_draws_what_the_attack_draws_without_art(model, public, ours):
    attack = attack_on(wrap(model), public.numpy(), count_per_class=2, seed=5)
    assert isinstance(attack, InferenceAttack)
    made = attack.infer()
    assert made.dtype == np.float32
    assert np.array_equal(made, ours(2, seed=5).reshape(8, *SHAPE))


@pytest.mark.parametrize(
    "y",
    [np.array([2, 0, 2]), np.array([[2], [0], [2]]), np.eye(4)[[2, 0, 2]], np.array([2.0, 0.0, 2.0])],
    ids=["labels", "column", "one-hot", "floats"],
)
def test_each_label_asked_for_gets_its_images_and_a_second_time_others(model, public, ours, y):
    drawn = ours(4)
    made = attack_on(wrap(model), public.numpy(), count_per_class=2).infer(y=y)
    assert np.array_equal(made, np.concatenate([drawn[2, :2], drawn[0, :2], drawn[2, 2:]]))
    assert not np.array_equal(drawn[2, :2], drawn[2, 2:])


@pytest.mark.parametrize(("low", "high"), [(0.0, 255.0), (-1.0, 1.0)])
def test_images_come_and_go_in_the_classifier_s_range(model, public, ours, low, high):
    preprocessing = (low, high - low)  # back to [0, 1], in which the model was trained
    estimator = wrap(model, clip_values=(low, high), preprocessing=preprocessing)
    made = attack_on(estimator, (low + public * (high - low)).numpy()).infer()
    expected = low + ours(1).reshape(4, *SHAPE) * (high - low)
    assert np.allclose(made, expected, atol=0.02 * (high - low))
    assert np.abs(made - expected).mean() < 1e-3 * (high - low)
    assert low <= made.min() < low + 0.5 * (high - low) < made.max() <= high
    assert made.dtype == np.float32


def test_x_takes_the_place_of_the_public_images(model, public, ours, blobs):
    others = blobs(40, seed=8)
    made = attack_on(wrap(model), public.numpy()).infer(x=others.numpy())
    assert np.array_equal(made, ours(1, images=others).reshape(4, *SHAPE))
    assert not np.array_equal(made, ours(1).reshape(4, *SHAPE))


def test_public_images_are_drawn_by_name_in_the_classifier_s_shape(model):
    made = attack_on(wrap(model), "strokes", public_count=30).infer(y=np.array([1]))
    assert made.shape == (1, *SHAPE)
    assert 0 <= made.min() < made.max() <= 1


def test_by_default_it_is_patch_mi_on_strokes(model):
    attack = PatchMIInference(wrap(model))
    assert attack.attack == PatchMI()
    assert (attack.public, attack.count_per_class, attack.seed) == ("strokes", 1, 0)


def test_parameters_are_set_and_checked_as_in_art(model, public):
    attack = attack_on(wrap(model), public.numpy())
    attack.set_params(count_per_class=3, seed=2)
    assert (attack.count_per_class, attack.seed) == (3, 2)
    assert "count_per_class=3, seed=2" in repr(attack)
    for wrong in (
        {"count_per_class": 0},
        {"count_per_class": 1.5},
        {"public_count": -1},
        {"seed": None},
        {"attack": "patch-mi"},
        {"public": public[0].numpy()},
        {"learning_rate": 0.1},
    ):
        with pytest.raises(ValueError, match=next(iter(wrong))) as refused:
            attack_on(wrap(model), public.numpy()).set_params(**wrong)
        assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    "y", [np.array([4]), np.array([-1]), np.array([0.5]), np.array([]), np.eye(3), np.eye(4)[None]], ids=str
)
def test_classes_that_do_not_exist_are_refused_in_one_line(model, public, y):
    with pytest.raises(ValueError, match="labels from 0 to 3, or rows of 4 numbers") as refused:
        attack_on(wrap(model), public.numpy()).infer(y=y)
    assert "\n" not in str(refused.value)


def test_an_option_that_infer_does_not_know_is_refused(model, public):
    with pytest.raises(ValueError, match="not mask"):
        attack_on(wrap(model), public.numpy()).infer(mask=None)


def test_another_kind_of_estimator_is_refused_by_art_itself():
    from sklearn.linear_model import LogisticRegression

    x, y = np.eye(4), np.array([0, 1, 0, 1])
    with pytest.raises(EstimatorError):
        PatchMIInference(SklearnClassifier(LogisticRegression().fit(x, y)))


def test_defences_that_are_bypassed_are_named_in_the_log(model, public, caplog):
    from art.defences.postprocessor import Rounded

    attack = attack_on(wrap(model, postprocessing_defences=Rounded()), public.numpy())
    attack.infer(y=np.array([0]))
    assert "postprocessing defence Rounded is bypassed" in caplog.text


def test_a_classifier_that_answers_probabilities_is_attacked_by_their_logarithms(model, public, ours):
    softmax = nn.Sequential(model, nn.Softmax(dim=1))
    made = attack_on(wrap(softmax), public.numpy()).infer()
    assert np.abs(made - ours(1).reshape(4, *SHAPE)).mean() < 1e-3


def test_the_classifier_leaves_unchanged(model, public):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    attack_on(wrap(model), public.numpy()).infer()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_nothing_else_imports_art():
    rooms = "patchmi, patchmi.attacks, patchmi.target.adapters, patchmi.report, patchmi.data"
    done = run_python(f"import sys, {rooms}; print('art' in sys.modules)")
    assert done.stdout.strip() == "False", done.stderr


def test_without_art_one_line_says_how_to_install_it():
    done = run_python("import sys; sys.modules['art'] = None; import patchmi.art")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == ("ImportError: patchmi.art needs ART: pip install 'patchmi[art]'")
