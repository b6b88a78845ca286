"""What an audit itself asks its target, apart from the attack: for a control, and for the target's opinion.

A target at hand is simply asked. One at an address belongs to somebody: what it is sent is counted, and kept
in the run folder, so that it is not sent twice.
"""

import sys
from typing import Any

import torch

from patchmi.attacks.base import SNAPSHOT_SHARES, snapshot_count
from patchmi.audit.plan import Plan, Private
from patchmi.audit.stages import to_bytes
from patchmi.runs import Journal, RunFolder
from patchmi.target import Target, answer_of, answers, open_black_box
from patchmi.types import Images, Logits, Progress

ANSWERS = "audit.queries"
"""The file that keeps what an address answered to the audit."""
PUBLIC = "the public images, as a control"
RECONSTRUCTED = "the reconstructions"
SNAPSHOTS = "snapshots of the attack"
HELD_OUT = "held-out images"
"""What images are sent for, in the result."""


class Questions:
    """An audit's own questions to a target.

    Args:
        target: Who is asked; at an address it is sent images of 8 bits.
        run: Keeps the answers of an address.
        progress: How to show how far they are.
    """

    def __init__(self, target: Target, run: RunFolder, progress: Progress) -> None:
        self.target = target
        self._progress = progress
        self._door = None
        if target.address is not None:
            access = "label" if target.access == "label" else "score"
            self._door = open_black_box(
                target, access=access, budget=sys.maxsize, record=Journal(run.path(ANSWERS))
            )

    def answers(self, images: Images, *, stage: str) -> Logits:
        """The target's logits; of an address, the logarithm of what it shows.

        Args:
            images: Pixels in [0, 1].
            stage: What for.

        Raises:
            EndpointFailed: The address does not answer as it should.
        """
        if self._door is None:
            return answers(self.target, images)
        sent = to_bytes(images).split(self._door.batch_size)
        scores = []
        for number in self._progress(range(len(sent)), f"The target is asked about {stage}"):
            scores.append(answer_of(self._door, sent[number], stage=stage))
        return torch.cat(scores).clamp_min(torch.finfo(torch.float32).tiny).log()

    def described(self) -> dict[str, Any]:
        """The result's `audit_questions`, for a target at an address."""
        if self._door is None:
            return {}
        account = self._door.account
        return {
            "audit_questions": {
                "asked": account.asked,
                "repeated": account.repeated,
                "stages": account.stages,
            }
        }


def expected_questions(plan: Plan, target: Target, private: Private | None) -> dict[str, int]:
    """Images that an audit will ask its target about beside the attack, at most, by what for."""
    class_count, seed_count = target.class_count, len(plan.seeds)
    expected = {
        PUBLIC: len(plan.public.images),
        RECONSTRUCTED: seed_count * class_count * plan.count_per_class,
        SNAPSHOTS: seed_count * class_count * len(SNAPSHOT_SHARES) * snapshot_count(class_count),
    }
    if private is not None and target.sees_private:
        # Once before anything is trained, where a misread target is noticed, and once for the result.
        expected[HELD_OUT] = 2 * len(private.held_out_images)
    return expected
