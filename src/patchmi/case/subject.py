"""The target, opened and probed, with the private images in the order of its classes."""

from dataclasses import dataclass, replace

import torch

from patchmi.audit import Findings, Private
from patchmi.case.images import PrivateFiles, open_private
from patchmi.data import SourceInvalid, class_names_of, listed, shape_of
from patchmi.target import Target, TargetFile, check_accuracy, is_address, open_target, probe_target


@dataclass(frozen=True)
class Case:
    """A target and the images to judge by, ready for an audit."""

    target: Target
    target_digest: str
    private: Private | None
    findings: Findings


def open_case(
    file: TargetFile, private_files: PrivateFiles | None, *, declared_accuracy: float | None = None
) -> Case:
    """Open target and private images, probe the target, and bring the classes into its order.

    Args:
        file: The model.
        private_files: The images it was trained on; None if the auditor has none.
        declared_accuracy: What the model's accuracy on held-out images is said to be.

    Raises:
        UnsafeInput: If a file could run code.
        TargetInvalid: If the model cannot be opened, or is so inaccurate that it must be misread.
        SourceInvalid: If the images cannot be read, or their classes are not the model's.
        EndpointFailed: If the model's address does not answer as it should.
    """
    if private_files is None:
        opened = open_target(file)
    else:
        source = private_files.source
        origin = (file.architecture or "").partition(":")[0]
        # Only a function of the user's, or who asks, must be told; other networks know, and a difference is
        # named below.
        must_be_told = origin not in ("", "timm", "patchmi") or is_address(file.source)
        class_count = len(class_names_of(source)) if must_be_told else None
        opened = open_target(file, class_count=class_count, image_shape=shape_of(source))
    target, probed = probe_target(opened.target)
    findings = [*opened.findings, *probed]
    if private_files is None:
        return Case(target, opened.sha256, None, Findings(tuple(findings)))
    private, noticed, order = _matched_images(private_files, target)
    target = replace(target, class_names=private.class_names)
    if order:
        findings.append(order)
    findings.append(_accuracy(target, private, declared_accuracy))
    return Case(target, opened.sha256, private, Findings(tuple(findings), noticed))


def _accuracy(target: Target, private: Private, declared: float | None) -> str:
    """How good the target is on held-out images, if it may see them; refused if it must be misread."""
    if not target.sees_private:
        unchecked = "" if declared is None else f" The declared accuracy of {declared:.3g} was not checked."
        return (
            f"No private image was sent to {target.address}, so that the target's accuracy is not known; "
            f"--send-held-out measures it.{unchecked}"
        )
    measured = check_accuracy(
        target, images=private.held_out_images, labels=private.held_out_labels, declared=declared
    )
    if target.address is None:
        return measured.finding
    return f"{measured.finding} They were sent to {target.address}, at each start and once for the result."


def _matched_images(files: PrivateFiles, target: Target) -> tuple[Private, tuple[str, ...], str | None]:
    """Private images in the order of the target's classes, what was noticed, and how they were matched."""
    private, notes = open_private(files, image_shape=target.image_shape)
    theirs, ours = target.class_names, private.class_names
    if len(theirs) != len(ours):
        raise SourceInvalid(
            f"{files.source}: has {len(ours)} classes ({listed(ours)}), the target answers for "
            f"{len(theirs)}; give images of all of its classes"
        )
    if theirs == ours:
        return private, notes, None
    if set(theirs) == set(ours):
        order = torch.tensor([theirs.index(name) for name in ours])
        matched = replace(
            private,
            train_labels=order[private.train_labels],
            held_out_labels=order[private.held_out_labels],
            class_names=theirs,
        )
        return matched, notes, "Folders and the model's classes were matched by their names."
    said = ", ".join(f"{number} = {name}" for number, name in enumerate(ours[:12]))
    more = "" if len(ours) <= 12 else f" and {len(ours) - 12} more"
    return private, notes, f"The model's answers were taken to stand in the images' order: {said}{more}."
