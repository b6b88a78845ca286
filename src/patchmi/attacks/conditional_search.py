"""A latent for each image of a conditional generator: drawn while it learns, then searched.

The last stage of PLG-MI (X. Yuan et al., AAAI 2023) and of LOKT (N.-B. Nguyen et al., NeurIPS 2023), with the
clock and the snapshots of the generator's learning too.
"""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from patchmi import machine
from patchmi.attacks.base import OBSERVED_EVERY, SNAPSHOT_SHARES, merge_snapshots, snapshot_count
from patchmi.losses import Scalar
from patchmi.networks import ConditionalResNetGenerator
from patchmi.types import Bytes, Images, Labels, Latents, Observer, Reconstructions, unobserved
from patchmi.views import slight_views

SEARCH_VIEWS = 2
CHUNK_SIZE = 1_000
"""Images that are searched in one pass through the networks."""


class ConditionalSearch:
    """The latents of all images that are asked for, and the steps that lead to these.

    Args:
        generator: Draws images of a class; first it learns, then it stays.
        class_count: Number of classes.
        count_per_class: Images of each.
        stages: Steps in which the generator learns, and steps of the search.
        flips: Whether half of the views are mirrored.
    """

    def __init__(
        self,
        generator: ConditionalResNetGenerator,
        *,
        class_count: int,
        count_per_class: int,
        stages: tuple[int, int],
        flips: bool,
    ) -> None:
        self.generator, self.class_count = generator, class_count
        self.labels = torch.arange(class_count).repeat_interleave(count_per_class)
        # Drawn on the CPU: the same on every machine.
        latents = torch.randn(len(self.labels), generator.latent_size)
        self.latents = nn.Parameter(latents.to(machine.device()))
        self.optimiser = torch.optim.Adam([self.latents], lr=0.1)
        self.views = slight_views(generator.image_size, flips=flips, draw_count=SEARCH_VIEWS)
        places = torch.arange(len(self.labels)) % count_per_class
        self.shown = (places < snapshot_count(class_count)).nonzero()[:, 0]
        learns, moves = stages
        self.step_count = learns + moves
        self.snapshot_steps = {
            first + round(share * n)
            for first, n in ((0, learns), (learns, moves))
            for share in SNAPSHOT_SHARES[:-1]
        }
        self.snapshots: list[dict[str, Any]] = []
        self.step, self.seconds = 0, 0.0

    def take(
        self, take_step: Callable[[], dict[str, Scalar]], observe: Observer, *, queries: int = 0
    ) -> None:
        """One step of either stage, with its snapshot, its time and its observer.

        Args:
            take_step: What is done; gives the terms of the loss, by name.
            observe: Is told them now and then.
            queries: Images that a black box has been sent by now.
        """
        began, step = time.perf_counter(), self.step
        if step in self.snapshot_steps:
            shown = self.latents[self.shown.to(self.latents.device)]
            self._keep_snapshot(self.images(shown, self.labels[self.shown]), queries)
        terms = take_step()
        self.step += 1
        self.seconds += time.perf_counter() - began
        # Reading a loss waits for the device that computes it.
        if observe is not unobserved and step % OBSERVED_EVERY == 0:
            observe(step, {name: term.item() for name, term in terms.items()} | {"seconds": self.seconds})

    def advance(
        self, loss_of: Callable[[Images, Labels], Scalar], *, precision: machine.Precision
    ) -> dict[str, Scalar]:
        """One step of Adam on every latent.

        Args:
            loss_of: The mean loss of views in [0, 1] and the classes that they are to show.
            precision: Number format of the networks.
        """
        self.generator.eval().requires_grad_(False)
        self.optimiser.zero_grad()
        total = torch.zeros((), device=self.latents.device)
        all_labels = self.labels.to(machine.device())
        with machine.mixed_precision(precision):
            for latents, labels in zip(
                self.latents.split(CHUNK_SIZE), all_labels.split(CHUNK_SIZE), strict=True
            ):
                fake = self.generator(latents, labels)
                views = self.views.draw((fake + 1) / 2)
                # A sum over images: the gradient of a latent does not depend on how many others there are.
                loss = loss_of(views, labels.repeat(SEARCH_VIEWS)) * len(labels)
                loss.backward()
                total += loss.detach()
        self.optimiser.step()
        return {"attack": total / len(self.labels)}

    def draw_batch(self, size: int) -> tuple[Latents, Labels]:
        """New latents, and random classes for them."""
        latents = torch.randn(size, self.generator.latent_size)
        labels = torch.randint(self.class_count, (size,))
        return latents.to(machine.device()), labels.to(machine.device())

    @torch.no_grad()
    def images(self, latents: Latents, labels: Labels) -> Bytes:
        """What the generator draws, 8 bits a pixel, on the CPU."""
        self.generator.eval()
        latents, labels = latents.to(machine.device()), labels.to(machine.device())
        pairs = zip(latents.split(256), labels.split(256), strict=True)
        images = torch.cat([self.generator(*pair) for pair in pairs])
        return ((images + 1) * 127.5).round().clamp(0, 255).byte().cpu()

    def _keep_snapshot(self, images: Bytes, queries: int) -> None:
        """Keep the first images of each class."""
        self.snapshots.append(
            {
                "step": self.step,
                "seconds": self.seconds,
                "images": images,
                "labels": self.labels[self.shown],
                "queries": queries,
            }
        )

    def answer(self, seed: int, notes: tuple[str, ...], *, queries: int = 0) -> Reconstructions:
        """What all latents draw in the end."""
        began = time.perf_counter()
        images = self.images(self.latents, self.labels)
        self.seconds += time.perf_counter() - began
        self._keep_snapshot(images[self.shown], queries)
        seeds = torch.full_like(self.labels, seed)
        return Reconstructions(images.float() / 255, self.labels, seeds, merge_snapshots([vars(self)]), notes)

    def state(self) -> dict[str, Any]:
        """All that the next step depends on, but the generator and the random state."""
        return {
            "latents": self.latents.detach(),
            "optimiser": self.optimiser.state_dict(),
            "snapshots": self.snapshots,
            "step": self.step,
            "seconds": self.seconds,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Take up a state that `state` gave."""
        with torch.no_grad():
            self.latents.copy_(state["latents"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.snapshots, self.step, self.seconds = state["snapshots"], state["step"], state["seconds"]
