import pytest
import torch
from torch import nn
from torch.nn import functional as F

from patchmi.networks import ARCHITECTURES, Bottleneck, Classifier, build_classifier, stages
from patchmi.networks.classifiers import ResidualBlock


def build(name: str, *, class_count: int = 5, width: int = 8) -> Classifier:
    torch.manual_seed(0)
    return build_classifier(name, class_count=class_count, channel_count=1, width=width)


IMAGES = torch.rand(6, 1, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_a_name_without_a_change_is_the_architecture_itself(name: str) -> None:
    torch.manual_seed(0)
    plain = ARCHITECTURES[name](class_count=5, channel_count=1, width=8)
    for one, other in zip(plain.state_dict().values(), build(name).state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_a_bottleneck_draws_its_code_in_training_alone() -> None:
    head: nn.Module = build("resnet10+bottleneck").head
    assert isinstance(head, Bottleneck)
    features = torch.randn(4, head.code.in_features)
    assert not torch.equal(head.train()(features), head(features))
    mean, deviation = head.eval().encode(features)
    assert torch.equal(head(features), head.decision(mean))
    assert mean.shape == (4, head.code.in_features // 2)
    assert torch.allclose(deviation, F.softplus(head.code(features)[:, mean.shape[1] :] - 5))


def test_a_code_has_the_mean_and_the_deviation_that_are_asked_for() -> None:
    head = Bottleneck(feature_count=4, class_count=2).train()
    head.decision = nn.Linear(2, 2)
    with torch.no_grad():
        head.decision.weight.copy_(torch.eye(2))
        head.decision.bias.zero_()
    torch.manual_seed(0)
    drawn = head.decide(torch.tensor([[1.0, -2.0]]).expand(20_000, 2), torch.tensor([[0.5, 3.0]]))
    assert torch.allclose(drawn.mean(dim=0), torch.tensor([1.0, -2.0]), atol=0.08)
    assert torch.allclose(drawn.std(dim=0), torch.tensor([0.5, 3.0]), atol=0.08)


def test_group_norm_leaves_no_batch_norm_and_every_image_to_itself() -> None:
    network = build("resnet10+group-norm").train()
    assert not any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    alone = torch.cat([network(image[None]) for image in IMAGES])
    torch.testing.assert_close(network(IMAGES), alone, atol=1e-5, rtol=1e-4)


def test_a_skip_scale_scales_the_shortcut_of_the_last_stage_and_no_other() -> None:
    names = ("resnet10", "resnet10+skip-0.2", "resnet10+skip-0")
    plain, scaled, none = (build(name).eval() for name in names)
    blocks = [[one for one in each.modules() if isinstance(one, ResidualBlock)] for each in (scaled, none)]
    assert [[block.skip_scale for block in own] for own in blocks] == [[1, 1, 1, 0.2], [1, 1, 1, 0]]
    last = next(reversed([one for one in plain.modules() if isinstance(one, ResidualBlock)]))
    maps = torch.randn(2, 32, 8, 8)
    with torch.no_grad():
        assert torch.allclose(
            blocks[0][-1](maps), F.relu(last.main(maps) + 0.2 * last.shortcut(maps[..., ::2, ::2]))
        )
        assert torch.allclose(blocks[1][-1](maps), F.relu(last.main(maps)))


def test_changes_add_up_in_one_name() -> None:
    network = build("resnet10+skip-0.5+bottleneck")
    assert isinstance(network.head, Bottleneck)
    assert network(IMAGES).shape == (6, 5)


@pytest.mark.parametrize(
    "name", ["resnet11", "resnet10+", "resnet10+skip", "resnet10+skip-x", "lenet+skip-0.5", "resnet10+skip-2"]
)
def test_names_of_nothing_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(ValueError, match="give") as caught:
        build(name)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_stages_hold_all_weights_of_the_trunk_in_their_order(name: str) -> None:
    network = build(name)
    own = [weight for stage in stages(network) for weight in stage.parameters()]
    assert [id(weight) for weight in own] == [id(weight) for weight in network.trunk.parameters()]
    assert len(stages(network)) >= 2
