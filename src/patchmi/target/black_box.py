"""The doors to a target that answers and shows no more: scores, or labels alone, each image counted.

An image goes in with 8 bits a pixel, as a deployed model gets it, so no gradient can come back; a door holds
a function that answers, and no module.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from patchmi.target.access import AccessDenied, Target, answers
from patchmi.target.address import AddressedModel
from patchmi.types import Access, Bytes, Labels, Scores

Oracle = Callable[[Bytes], Scores]
"""Whoever answers: class scores for images of 8 bits a pixel, on the CPU."""


ASKED_AT_ONCE = 256
"""Images that are sent, and recorded, at a time, where no endpoint has its own number."""


class BudgetSpent(ValueError):  # noqa: N818 - what happened, not that it is an error
    """More questions than the budget allows; nothing of the call was asked."""


@runtime_checkable
class Record(Protocol):
    """What keeps questions and answers, as `patchmi.runs.Journal` does in a file."""

    def read(self) -> list[bytes]:
        """All of them, in order."""
        ...

    def append(self, records: Sequence[bytes]) -> None:
        """Keep some more; they must not be lost once this returns."""
        ...


@dataclass(frozen=True)
class OutputMode:
    """What a deployed model makes of its scores before it shows them.

    Noise comes first, then temperature, rounding, and the choice of the best. A label is taken before all of
    these but noise: they change how sure an answer looks, and not which class is first.

    Args:
        top_k: Only so many of the highest scores are shown, the others are 0; None: all.
        decimals: Digits after the point; None: all.
        noise: Standard deviation of what is added to every score, drawn anew for every question.
        temperature: Scores are raised to its inverse and normalised: above 1 they look less sure.

    Raises:
        ValueError: If a number is out of its range.
    """

    top_k: int | None = None
    decimals: int | None = None
    noise: float = 0.0
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k is {self.top_k}: give 1 or more, or None for all scores")
        if self.decimals is not None and self.decimals < 0:
            raise ValueError(f"decimals is {self.decimals}: give 0 or more, or None for all digits")
        if not 0 <= self.noise < float("inf") or not 0 < self.temperature < float("inf"):
            raise ValueError(
                f"noise {self.noise} and temperature {self.temperature}: give a noise of 0 or more, a "
                "temperature above 0"
            )


PLAIN = OutputMode()


@dataclass
class Account:
    """What has been asked, counted in images."""

    asked: int = 0
    """Images that were sent, repeats and views among them."""
    repeated: int = 0
    """Images that had been sent before, and were answered from memory: free, and counted apart."""
    calls: int = 0
    stages: dict[str, int] = field(default_factory=dict)
    """Of those sent, how many in each stage of the attack."""
    answered: list[int] = field(default_factory=list)
    """Of those sent, how often each class was the answer."""


def oracle_of(target: Target) -> Oracle:
    """A target as one that only answers: the softmax of its logits, in float32, or what its address shows."""
    if isinstance(target.model, AddressedModel):
        return target.model.oracle

    def answer(images: Bytes) -> Scores:
        return answers(target, images.float() / 255).softmax(dim=1)

    return answer


def shown_scores(scores: Scores, mode: OutputMode) -> Scores:
    """What a mode shows of scores that have had their noise."""
    if mode.temperature != 1:
        tempered = scores.clamp_min(torch.finfo(scores.dtype).tiny).log() / mode.temperature
        scores = tempered.softmax(dim=1)
    if mode.decimals is not None:
        scores = scores.round(decimals=mode.decimals)
    if mode.top_k is not None:
        best = scores.topk(min(mode.top_k, scores.shape[1]), dim=1).indices
        scores = torch.zeros_like(scores).scatter(1, best, scores.gather(1, best))
    return scores


class BlackBox(ABC):
    """What both doors share: every question is counted and paid for, once.

    Args:
        oracle: Whoever answers.
        class_names: One name a class, in the order of the scores.
        image_shape: Channels, height and width of its images.
        budget: Images that may be sent.
        mode: What the model makes of its scores.
        record: Keeps every answer, so that a killed attack goes on without asking again; None: memory alone.
        remembers: Off: an image that was sent before is sent, and counted, again.
        seed: Of the mode's noise.
        batch_size: Images that are sent, and recorded, at a time.
    """

    access: ClassVar[Access]

    def __init__(
        self,
        oracle: Oracle,
        *,
        class_names: tuple[str, ...],
        image_shape: tuple[int, int, int],
        budget: int,
        mode: OutputMode = PLAIN,
        record: Record | None = None,
        remembers: bool = True,
        seed: int = 0,
        batch_size: int = ASKED_AT_ONCE,
    ) -> None:
        self.class_names, self.image_shape = class_names, image_shape
        self.class_count = len(class_names)
        self.budget = budget
        self.account = Account(answered=[0] * self.class_count)
        self._oracle, self._mode = oracle, mode
        self._record, self._remembers = record, remembers
        self._seed, self.batch_size = seed, batch_size
        self._questions: list[_Question] = [] if record is None else [_unpacked(one) for one in record.read()]
        self._known: dict[bytes, Tensor] = {}
        self._ahead: dict[bytes, deque[Tensor]] = defaultdict(deque)
        self._go_on_from(0)

    @property
    def left(self) -> int:
        """Images that may still be sent."""
        return self.budget - self.account.asked

    @property
    def sent_count(self) -> int:
        """Images that the target was really sent; after a kill for a while more than the account has."""
        return len(self._questions)

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps, to go on from the same question."""
        return asdict(self.account)

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from where `state` was taken: what the record holds of later questions is not asked again.

        Raises:
            ValueError: The record holds fewer questions than had been asked by then.
        """
        self.account = Account(**state)
        if len(self._questions) < self.account.asked:
            raise ValueError(
                f"the record holds {len(self._questions):,} answers, the checkpoint counts "
                f"{self.account.asked:,}: it belongs to another run, or was cut; begin the run anew"
            )
        self._go_on_from(self.account.asked)

    @abstractmethod
    def _answer(self, scores: Scores) -> Float[Tensor, "n columns"]:
        """What is shown of scores that have had their noise."""

    def _ask(self, images: Bytes, stage: str) -> Float[Tensor, "n columns"]:
        """What is shown of the target's answers to images of 8 bits a pixel, sent or remembered."""
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images are {images.dtype} of shape {tuple(images.shape[1:])}: a black box takes 8 bits a "
                f"pixel, torch.uint8, of shape {self.image_shape}"
            )
        if not len(images):
            return torch.empty(0, self._answer(torch.zeros(1, self.class_count)).shape[1])
        images = images.cpu().contiguous()
        digests = [hashlib.blake2b(image.numpy().tobytes(), digest_size=16).digest() for image in images]
        new = self._places_to_send(digests)
        recorded = Counter({digest: len(answers) for digest, answers in self._ahead.items()})
        unknown = (Counter(digests[place] for place in new) - recorded).total()
        if max(self.account.asked + len(new), self.sent_count + unknown) > self.budget:
            raise BudgetSpent(
                f"the budget is {self.budget:,} images, {self.account.asked:,} were sent and {len(new):,} "
                "more are to be: give a larger --budget"
            )
        self.account.repeated += len(digests) - len(new)
        sent = self._send(images, digests, new, stage)
        return torch.stack(
            [sent[place] if place in sent else self._known[digest] for place, digest in enumerate(digests)]
        )

    def _places_to_send(self, digests: Sequence[bytes]) -> list[int]:
        """Which images must be sent: all, or those that are new and have no equal before them in the call."""
        if not self._remembers:
            return list(range(len(digests)))
        first = {digest: place for place, digest in reversed(list(enumerate(digests)))}
        return sorted(place for digest, place in first.items() if digest not in self._known)

    def _send(
        self, images: Bytes, digests: Sequence[bytes], places: Sequence[int], stage: str
    ) -> dict[int, Tensor]:
        """Answers to the images that count, by place: the target's, or the record's after a kill."""
        sent = {
            place: self._ahead[digests[place]].popleft() for place in places if self._ahead[digests[place]]
        }
        to_send = [place for place in places if place not in sent]
        for start in range(0, len(to_send), self.batch_size):
            some = to_send[start : start + self.batch_size]
            shown = self._answer(self._with_noise(self._oracle(images[some])))
            questions = [_Question(digests[place], row) for place, row in zip(some, shown, strict=True)]
            if self._record is not None:
                self._record.append([_packed(one) for one in questions])
            self._questions += questions
            sent |= dict(zip(some, shown, strict=True))
        account = self.account
        account.calls += math.ceil(len(places) / self.batch_size)
        account.asked += len(places)
        account.stages[stage] = account.stages.get(stage, 0) + len(places)
        for place in places:
            self._known[digests[place]] = sent[place]
            account.answered[self._label(sent[place])] += 1
        return sent

    @abstractmethod
    def _label(self, answer: Tensor) -> int:
        """The class that an answer names first."""

    def _with_noise(self, scores: Scores) -> Scores:
        """Scores with the mode's noise, which depends on how many questions came before."""
        if self._mode.noise == 0:
            return scores
        generator = torch.Generator().manual_seed(self._seed * 1_000_003 + len(self._questions))
        noise = torch.empty_like(scores).normal_(0, self._mode.noise, generator=generator)
        return (scores + noise).clamp_min(0)

    def _go_on_from(self, asked: int) -> None:
        """Take the first so many questions as asked, and the others of the record as still to come."""
        self._known = {one.digest: one.answer for one in self._questions[:asked]}
        self._ahead.clear()
        for one in self._questions[asked:]:
            self._ahead[one.digest].append(one.answer)


@final
class ScoreAccess(BlackBox):
    """Class scores for images, and nothing else."""

    access: ClassVar[Access] = "score"

    def scores(self, images: Bytes, *, stage: str) -> Scores:
        """The scores of every class, as the model shows them.

        Args:
            images: What is sent, 8 bits a pixel.
            stage: What for, in the account.

        Raises:
            BudgetSpent: They are more than the budget leaves; none was sent.
            ValueError: They do not fit the target.
        """
        return self._ask(images, stage)

    def _answer(self, scores: Scores) -> Scores:
        return shown_scores(scores, self._mode)

    def _label(self, answer: Tensor) -> int:
        return int(answer.argmax())


@final
class LabelAccess(BlackBox):
    """The most likely class of each image, and nothing else: no score is ever held here."""

    access: ClassVar[Access] = "label"

    def labels(self, images: Bytes, *, stage: str) -> Labels:
        """The class of every image.

        Args:
            images: What is sent, 8 bits a pixel.
            stage: What for, in the account.

        Raises:
            BudgetSpent: They are more than the budget leaves; none was sent.
            ValueError: They do not fit the target.
        """
        return self._ask(images, stage)[:, 0].long()

    def _answer(self, scores: Scores) -> Float[Tensor, "n 1"]:
        return scores.argmax(dim=1, keepdim=True).float()

    def _label(self, answer: Tensor) -> int:
        return int(answer)


def answer_of(door: BlackBox, images: Bytes, *, stage: str) -> Scores:
    """What a door answers, as class shares: its scores, or 1 for its label."""
    if isinstance(door, ScoreAccess):
        return door.scores(images, stage=stage)
    assert isinstance(door, LabelAccess)
    return F.one_hot(door.labels(images, stage=stage), door.class_count).float()


def open_black_box(
    target: Target, *, access: Access, budget: int, mode: OutputMode = PLAIN, record: Record | None = None
) -> BlackBox:
    """A door to a target, at hand or at an address.

    Args:
        target: Who answers.
        access: `score` or `label`.
        budget: Images that may be sent.
        mode: What the model makes of its scores.
        record: Keeps every answer; of an address, each request's as it arrives.

    Raises:
        AccessDenied: The target grants less.
    """
    if target.access == "label" and access == "score":
        raise AccessDenied(f"{target.name}: answers labels alone; give --access label")
    door = {"score": ScoreAccess, "label": LabelAccess}[access]
    model = target.model
    batch_size = model.oracle.endpoint.batch_size if isinstance(model, AddressedModel) else ASKED_AT_ONCE
    return door(
        oracle_of(target),
        class_names=target.class_names,
        image_shape=target.image_shape,
        budget=budget,
        mode=mode,
        record=record,
        batch_size=batch_size,
    )


class _Question(NamedTuple):
    """An image, by its digest, and what was answered."""

    digest: bytes
    answer: Tensor


def _packed(question: _Question) -> bytes:
    return question.digest + question.answer.numpy().astype("<f4").tobytes()


def _unpacked(record: bytes) -> _Question:
    return _Question(record[:16], torch.from_numpy(np.frombuffer(record[16:], "<f4").copy()))
