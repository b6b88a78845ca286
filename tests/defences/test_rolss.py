"""RoLSS: the shortcut's scale is 1 minus the strength, and stands in the architecture's name."""

import pytest
import torch
from tests.defences.test_training import BRIEF, bars, weights

from patchmi.defences import DEFENCES, Lesson, Rolss, choose_defence, train_defended
from patchmi.networks import build_classifier
from patchmi.networks.classifiers import ResidualBlock
from patchmi.target import Training


def shortcut_scales(strength: float) -> tuple[str, list[float]]:
    lesson = Lesson(*bars(6), Training(step_count=1, batch_size=6, precision="float32"), class_count=3)
    defended = train_defended("resnet10", Rolss(strength), lesson, seed=0, width=8)
    blocks = [part for part in defended.network.modules() if isinstance(part, ResidualBlock)]
    return defended.architecture, [block.skip_scale for block in blocks]


@pytest.mark.parametrize(
    ("strength", "name", "scale"),
    [(0.2, "0.8", 0.8), (0.4, "0.6", 0.6), (0.6, "0.4", 0.4), (0.8, "0.2", 0.2), (1.0, "0", 0.0)],
)
def test_the_name_says_what_is_left_of_the_shortcut(strength: float, name: str, scale: float) -> None:
    assert strength in DEFENCES["rolss"].strengths
    assert shortcut_scales(strength) == (f"resnet10+skip-{name}", [1, 1, 1, scale])


def test_a_toy_still_learns_the_same_from_the_same_seed_and_opens_by_its_name() -> None:
    training = Training(step_count=30, batch_size=24, learning_rate=1e-2, precision="float32")
    lesson = Lesson(*bars(48), training, class_count=3)
    first, second = (
        train_defended("resnet10", choose_defence("rolss"), lesson, seed=0, width=4) for _ in range(2)
    )
    assert weights(first.network) == weights(second.network)
    images, labels = bars(60, seed=9)
    answers = first.network(images)
    assert float((answers.argmax(1) == labels).float().mean()) > 0.8
    again = build_classifier(first.architecture, class_count=3, channel_count=1, width=4)
    again.load_state_dict(first.network.state_dict())
    torch.testing.assert_close(again.eval()(images), answers)


@pytest.mark.parametrize("architecture", ["vgg6", "lenet", "mlp"])
def test_networks_without_shortcuts_are_refused_in_one_line(architecture: str) -> None:
    with pytest.raises(ValueError, match="give a residual network") as caught:
        train_defended(architecture, Rolss(0.8), Lesson(*bars(6), BRIEF, class_count=3), seed=0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_wrong_strengths_are_refused(strength: float) -> None:
    with pytest.raises(ValueError, match=r"rolss, strength .*: give a share above 0 and at most 1$"):
        Rolss(strength)
