"""What a classifier's last linear layer is fed: the features behind its logits."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from patchmi.types import Features, Logits


@contextmanager
def recorded_features(model: nn.Module) -> Iterator[Callable[[Logits], Features]]:
    """Inside the block, every forward pass of `model` leaves its features behind.

    Features are what enters the last `nn.Linear` that a pass runs through (for patchmi's own classifiers the
    output of `features`, before `head`).

    Args:
        model: A classifier; it gets its hooks back as they were.

    Yields:
        A function that takes the logits of the pass just made and gives its features, as they were computed.
        It raises ValueError if no linear layer made these logits.
    """
    inputs: dict[str, tuple[nn.Linear, Tensor]] = {}

    def remember(layer: nn.Module, arguments: tuple[Tensor, ...]) -> None:
        assert isinstance(layer, nn.Linear)
        inputs["last"] = (layer, arguments[0])

    def features_behind(logits: Logits) -> Features:
        layer, features = inputs.pop("last", (None, None))
        if layer is None or features is None or layer.out_features != logits.shape[1]:
            raise ValueError(
                f"no linear layer of the model ends in its {logits.shape[1]} classes: "
                "features are read from a classifier whose last layer is nn.Linear"
            )
        return features.flatten(start_dim=1)

    hooks = [
        module.register_forward_pre_hook(remember)
        for module in model.modules()
        if isinstance(module, nn.Linear)
    ]
    try:
        yield features_behind
    finally:
        for hook in hooks:
            hook.remove()
