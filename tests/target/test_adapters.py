"""Targets from Python objects: they answer as the objects do, with ART and foolbox really installed."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from patchmi.target import Target, TargetInvalid, WhiteBox, answers, probe_target
from patchmi.target.adapters import as_target

SHAPE = (3, 8, 10)
NUMBERED = "The classes have no names: they are numbered."


def make_model() -> nn.Module:
    """A model to which channel, place and scale of every pixel matter, with statistics that are not fresh."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Flatten(), nn.Linear(6 * 8 * 10, 4)
    )
    with torch.no_grad():
        model(torch.rand(32, *SHAPE))
    return model.eval()


def pixels(count: int = 5) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(9))


@pytest.fixture(scope="module")
def art_classifier() -> Callable[..., Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import, of libraries that it finds and does not find
        classification = pytest.importorskip("art.estimators.classification")

    def make(model: nn.Module | None = None, **options: Any) -> Any:
        options = {"input_shape": SHAPE, "nb_classes": 4, "clip_values": (0, 1), **options}
        return classification.PyTorchClassifier(
            model or make_model(), loss=nn.CrossEntropyLoss(), device_type="cpu", **options
        )

    return make


@pytest.fixture(scope="module")
def foolbox() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on import, of names in scipy that have moved
        return pytest.importorskip("foolbox")


def assert_close(ours: torch.Tensor, theirs: Any) -> None:
    torch.testing.assert_close(ours, torch.as_tensor(theirs), rtol=1e-5, atol=1e-5)


def test_the_answers_of_the_model_used_here_depend_on_channel_place_and_scale():
    model, images = make_model(), pixels()
    with torch.no_grad():
        for changed in (images.flip(1), images.flip(2), images.flip(3), images * 1.1, images + 0.1):
            assert (model(images) - model(changed)).abs().max() > 1e-2


# torch


def test_a_module_is_taken_as_it_is():
    model = make_model()
    target, findings = as_target(model, class_names=("a", "b", "c", "d"), image_shape=SHAPE, name="mine")
    assert target.model is model
    assert (target.class_names, target.image_shape, target.name) == (("a", "b", "c", "d"), SHAPE, "mine")
    assert (target.mean, target.std, target.gives_probabilities) == ((), (), False)
    assert target.architecture == "Sequential"
    assert findings == ()
    with torch.no_grad():
        # Its layout may be another, and the last bits with it.
        torch.testing.assert_close(answers(target, pixels()), model(pixels()), rtol=1e-5, atol=1e-6)


def test_classes_without_names_are_numbered():
    target, findings = as_target(make_model(), image_shape=SHAPE)
    assert target.class_names == ("0", "1", "2", "3")
    assert findings == (NUMBERED,)


def test_a_module_is_left_in_its_mode_and_to_the_last_bit():
    model = make_model().train()
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    as_target(model, image_shape=SHAPE)
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)


def test_what_it_answers_is_left_to_the_probe():
    model = nn.Sequential(make_model(), nn.Softmax(dim=1))
    target, _ = as_target(model, image_shape=SHAPE)
    assert not target.gives_probabilities
    probed, _ = probe_target(target)
    assert_close(answers(probed, pixels()), make_model()(pixels()).log_softmax(dim=1).detach())


@pytest.mark.parametrize(
    ("thing", "options", "remedy"),
    [
        (make_model(), {}, "image_shape is missing"),
        (make_model(), {"image_shape": (1, 8, 10)}, "give the image_shape it was trained on"),
        (lambda images: images, {"image_shape": SHAPE}, "a function.*PyTorchClassifier"),
        ("model.pt", {"image_shape": SHAPE}, "a str: give a torch.nn.Module"),
    ],
    ids=["no shape", "other channels", "function", "path"],
)
def test_what_cannot_be_a_target_is_refused_in_one_line(thing, options, remedy):
    with pytest.raises(TargetInvalid, match=remedy) as refused:
        as_target(thing, **options)
    assert "\n" not in str(refused.value)


# ART

NORMALISATIONS = {
    "none": (0.0, 1.0),
    "one number": (0.3, 0.7),
    "one a channel": (np.array([0.4, 0.5, 0.6]), np.array([0.2, 0.3, 0.25])),
    "broadcast": (np.full((3, 1, 1), 0.4), np.full((3, 1, 1), 0.25)),
}


@pytest.mark.parametrize("clip_values", [(0, 1), (0, 255), (-1.0, 1.0)], ids=str)
@pytest.mark.parametrize("preprocessing", NORMALISATIONS.values(), ids=NORMALISATIONS)
def test_an_art_classifier_unwrapped_answers_as_it_does(art_classifier, clip_values, preprocessing):
    low, high = clip_values
    scaled = tuple(np.asarray(part) * (high - low) for part in preprocessing)
    classifier = art_classifier(clip_values=clip_values, preprocessing=scaled)
    target, findings = as_target(classifier)
    theirs = classifier.predict((low + pixels() * (high - low)).numpy())
    assert_close(answers(target, pixels()), theirs)
    assert target.image_shape == SHAPE
    assert target.class_count == 4
    assert findings == (NUMBERED,)


def test_an_art_classifier_without_preprocessing_is_a_plain_model(art_classifier):
    model = make_model()
    target, _ = as_target(art_classifier(model, preprocessing=None))
    assert target.model is model
    assert (target.mean, target.std) == ((), ())


def test_byte_pixels_divided_by_255_are_a_plain_model(art_classifier):
    target, _ = as_target(art_classifier(clip_values=(0, 255), preprocessing=(0.0, 255.0)))
    assert (target.mean, target.std) == ((), ())


def test_defences_around_an_art_classifier_are_bypassed_and_named(art_classifier):
    from art.defences.postprocessor import HighConfidence, Rounded
    from art.defences.preprocessor import SpatialSmoothing

    options = {"preprocessing": (0.5, 0.25)}
    defended = art_classifier(
        preprocessing_defences=SpatialSmoothing(window_size=3, channels_first=True),
        postprocessing_defences=[Rounded(decimals=1), HighConfidence(cutoff=0.4)],
        **options,
    )
    target, findings = as_target(defended, class_names=("a", "b", "c", "d"))
    assert_close(answers(target, pixels()), art_classifier(**options).predict(pixels().numpy()))
    assert not np.allclose(defended.predict(pixels().numpy()), answers(target, pixels()), atol=1e-2)
    assert findings == (
        "The preprocessing defence SpatialSmoothing is bypassed: the model behind it was attacked.",
        "The postprocessing defence Rounded is bypassed: the model behind it was attacked.",
        "The postprocessing defence HighConfidence is bypassed: the model behind it was attacked.",
    )


def test_one_number_a_column_is_refused_as_art_reads_it_so(art_classifier):
    square = (3, 3, 3)
    mean, std = np.array([0.1, 0.2, 0.9]), np.array([0.5, 0.5, 1.0])
    model = nn.Sequential(nn.Flatten(), nn.Linear(27, 4)).eval()
    classifier = art_classifier(model, input_shape=square, preprocessing=(mean, std))
    x = torch.rand(2, *square)
    by_column = model((x - torch.tensor(mean).float()) / torch.tensor(std).float())
    assert_close(torch.as_tensor(classifier.predict(x.numpy())), by_column.detach())
    with pytest.raises(TargetInvalid, match="differs from pixel to pixel"):
        as_target(classifier)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"clip_values": None}, "clip_values is None"),
        ({"clip_values": (np.zeros(SHAPE), np.linspace(1, 2, 240).reshape(SHAPE))}, "pixel range differs"),
        ({"channels_first": False}, "channels_first=False"),
        ({"input_shape": (240,)}, r"input_shape \(240,\)"),
        ({"preprocessing": (np.zeros(SHAPE), np.linspace(1, 2, 240).reshape(SHAPE))}, "std differs"),
        ({"preprocessing": (np.zeros(7), np.ones(7))}, r"shape \(7, 1, 1\) do not fit"),
    ],
    ids=["no range", "range of pixels", "channels last", "vectors", "std of pixels", "seven channels"],
)
def test_an_art_classifier_that_is_more_than_mean_and_std_is_refused_in_one_line(
    art_classifier, options, remedy
):
    with pytest.raises(TargetInvalid, match=remedy) as refused:
        as_target(art_classifier(**options))
    assert "\n" not in str(refused.value)


def test_preprocessing_of_another_kind_is_refused_by_name(art_classifier):
    from art.defences.preprocessor import SpatialSmoothing

    with pytest.raises(TargetInvalid, match="preprocessing SpatialSmoothing"):
        as_target(art_classifier(preprocessing=SpatialSmoothing()))


# foolbox

MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


@pytest.mark.parametrize("bounds", [(0, 1), (0, 255), (-1.0, 1.0)], ids=str)
@pytest.mark.parametrize(
    "preprocessing",
    [
        None,
        {"mean": MEAN, "axis": -3},
        {"std": STD, "axis": -3},
        {"mean": MEAN, "std": STD, "axis": -3},
        {"mean": np.full((3, 1, 1), 0.4, np.float32)},
        {"mean": MEAN, "std": STD, "axis": -3, "flip_axis": -3},
        {"mean": MEAN, "axis": -3, "flip_axis": 1},
        {"mean": MEAN, "axis": -3, "flip_axis": -1},
        {"flip_axis": -2},
    ],
    ids=str,
)
def test_a_foolbox_model_unwrapped_answers_as_it_does(foolbox, bounds, preprocessing):
    low, high = bounds
    if preprocessing:
        known = {key: value for key, value in preprocessing.items() if "ax" in key}
        scaled = {
            key: np.asarray(value, np.float32) * (high - low)
            for key, value in preprocessing.items()
            if key not in known
        }
        preprocessing = {**scaled, **known}
    wrapper = foolbox.PyTorchModel(make_model(), bounds=bounds, preprocessing=preprocessing, device="cpu")
    target, findings = as_target(wrapper, image_shape=SHAPE)
    assert_close(answers(target, pixels()), wrapper(low + pixels() * (high - low)).detach())
    assert findings == (NUMBERED,)


def test_a_foolbox_model_with_transformed_bounds_answers_as_it_does(foolbox):
    preprocessing = {"mean": MEAN, "std": STD, "axis": -3}
    wrapper = foolbox.PyTorchModel(make_model(), bounds=(0, 1), preprocessing=preprocessing, device="cpu")
    transformed = wrapper.transform_bounds((-2, 3))
    target, _ = as_target(transformed, image_shape=SHAPE)
    assert_close(answers(target, pixels()), transformed(pixels() * 5 - 2).detach())
    assert_close(answers(target, pixels()), wrapper(pixels()).detach())


def test_a_foolbox_target_gives_gradients_and_batch_norm_as_the_module_itself(foolbox):
    model = make_model()
    wrapper = foolbox.PyTorchModel(model, (0, 1), device="cpu", preprocessing={"flip_axis": -3})
    target, _ = as_target(wrapper, image_shape=SHAPE)
    assert target.batch_norm_layer_count == Target(model, (), SHAPE).batch_norm_layer_count > 0
    images, mirrored = pixels().requires_grad_(True), pixels().flip(1).requires_grad_(True)
    (ours,) = torch.autograd.grad(WhiteBox(target).logits(images)[:, 0].sum(), images)
    (theirs,) = torch.autograd.grad(model(mirrored)[:, 0].sum(), mirrored)
    assert_close(ours, theirs.flip(1))
    assert ours.abs().mean() > 1e-3


@pytest.mark.parametrize(
    ("preprocessing", "remedy"),
    [
        ({"flip_axis": 0}, "flip_axis 0"),
        ({"mean": np.arange(10, dtype=np.float32)}, "mean differs from pixel to pixel"),
        ({"std": np.ones(3, np.float32)}, r"shape \(3,\) do not fit"),
    ],
    ids=["flipped batch", "mean of columns", "std of no axis"],
)
def test_a_foolbox_model_that_is_more_than_mean_and_std_is_refused_in_one_line(
    foolbox, preprocessing, remedy
):
    wrapper = foolbox.PyTorchModel(make_model(), (0, 1), preprocessing=preprocessing, device="cpu")
    with pytest.raises(TargetInvalid, match=remedy) as refused:
        as_target(wrapper, image_shape=SHAPE)
    assert "\n" not in str(refused.value)


def test_a_wrapped_foolbox_model_is_refused(foolbox):
    inner = foolbox.PyTorchModel(make_model(), (0, 1), device="cpu")
    with pytest.raises(TargetInvalid, match="ThresholdingWrapper"):
        as_target(foolbox.models.ThresholdingWrapper(inner, 0.5), image_shape=SHAPE)
