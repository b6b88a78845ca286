"""Many classes in several generators: which classes stand together.

Batch-norm matching compares a batch of generated images with what the target remembers of all its classes. A
generator of some classes only can be compared so if these are, together, like all of them.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from patchmi.attacks.public_prior import Answers, Weights, ask, some_of
from patchmi.target import WhiteBox
from patchmi.types import Images, Progress
from patchmi.views import IDENTITY

SHARPNESS = 3.0
"""How much more an image of which the target is sure counts than one of which it is not."""

ClassMoments = Float[Tensor, "classes moments"]
"""What the target's batch norms see of each class, in units of what they remember."""


def shards_of(
    door: WhiteBox,
    public: Images,
    *,
    shard_count: int,
    seed: int,
    progress: Progress,
) -> list[list[int]]:
    """The classes of each shard, balanced by what the target sees in public images that it takes for a class.

    Args:
        door: Access to the target.
        public: What the attacker has, in [0, 1].
        shard_count: How many there are to be, at most one a class.
        seed: Of the choice among very many public images.
        progress: How to show how far it is.
    """
    seen = some_of(public, seed=seed)
    answers = ask(
        door, seen, views=IDENTITY, progress=progress, description="The target looks for shards of classes"
    )
    tiny = torch.finfo(torch.float32).tiny
    weights = (SHARPNESS * answers.probabilities.T.clamp_min(tiny).log()).softmax(dim=1).cpu()
    return balanced_shards(class_moments(answers, weights), shard_count=shard_count)


def class_moments(answers: Answers, weights: Weights) -> ClassMoments:
    """First and second moments of each class's public images in every batch norm, beside the running ones.

    Of a batch of several classes they are the mean over its classes, as its variances are not.
    """
    columns = [torch.zeros(len(weights), 0)]
    for layer in answers.layers:
        mean, variance = layer.running_mean.float().cpu(), layer.running_variance.float().cpu()
        square = layer.batch_variance + layer.batch_mean.square()
        columns.append((weights @ layer.batch_mean.float().cpu() - mean) / (variance + 1e-5).sqrt())
        columns.append((weights @ square.float().cpu() - mean.square() - variance) / (variance + 1e-5))
    return torch.cat(columns, dim=1)


def balanced_shards(moments: ClassMoments, *, shard_count: int) -> list[list[int]]:
    """Deal classes into shards of one size, the means of which lie near the mean of all.

    Greedy, as R. Graham deals jobs to machines ("Bounds on multiprocessing timing anomalies", 1969): the most
    unusual class first, each to the shard, among those with room, whose sum it leaves nearest to that mean.

    Args:
        moments: One row a class.
        shard_count: At most as many as there are classes.

    Returns:
        Classes of each shard, in rising order; sizes differ by at most one.
    """
    class_count = len(moments)
    apart = moments.double() - moments.double().mean(dim=0)
    sizes = [class_count // shard_count + (shard < class_count % shard_count) for shard in range(shard_count)]
    shards: list[list[int]] = [[] for _ in sizes]
    sums = torch.zeros(shard_count, moments.shape[1], dtype=torch.double)
    for label in apart.square().sum(dim=1).argsort(descending=True, stable=True).tolist():
        growth = (sums + apart[label]).square().sum(dim=1) - sums.square().sum(dim=1)
        with_room = [shard for shard, size in enumerate(sizes) if len(shards[shard]) < size]
        chosen = min(with_room, key=lambda shard: (growth[shard].item(), len(shards[shard])))
        shards[chosen].append(label)
        sums[chosen] += apart[label]
    return [sorted(shard) for shard in shards]
