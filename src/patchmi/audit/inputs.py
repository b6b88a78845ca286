"""What a run stands on: digests of models and images, so that a resumed run cannot mix old and new."""

import hashlib
from typing import Any

from patchmi.audit.plan import Judge, Pictures, Private
from patchmi.audit.stages import to_bytes
from patchmi.data import Source
from patchmi.types import Images, Labels


def audit_inputs(
    target_digest: str | None, private: Private | None, judges: list[Judge], public: Source | None
) -> dict[str, Any]:
    """Digests of all that an audit stands on, of images in 8 bits.

    Args:
        target_digest: SHA-256 of the target's file.
        private: Training and held-out images.
        judges: Those that came in files count; those that the run trains depend on the private images.
        public: The attacker's images.
    """
    real = None
    if private is not None:
        real = {
            "train": _digest(private.train_images, private.train_labels),
            "held_out": _digest(private.held_out_images, private.held_out_labels),
        }
    return {
        "target": {"sha256": target_digest},
        "private": real,
        "public": None if public is None else _digest(public.images),
        "judges": {judge.name: judge.sha256 for judge in judges if judge.sha256 is not None},
    }


def score_inputs(
    pictures: Pictures, target_digest: str | None, private: Private | None, judges: list[Judge]
) -> dict[str, Any]:
    """The same of pictures that are scored, with the pictures themselves.

    Args:
        pictures: The reconstructions, and what is known of how they were made.
        target_digest: SHA-256 of the target's file, if there is one.
        private: Training and held-out images.
        judges: As in an audit.
    """
    return {
        "pictures": _digest(pictures.images, pictures.labels),
        "untrained": None if pictures.untrained is None else _digest(*pictures.untrained),
        **audit_inputs(target_digest, private, judges, pictures.public),
    }


def _digest(images: Images, labels: Labels | None = None) -> str:
    digest = hashlib.sha256(to_bytes(images).numpy().tobytes())
    if labels is not None:
        digest.update(labels.numpy().tobytes())
    return digest.hexdigest()
