"""What a command's options say, in the words of the rooms below.

Those are imported where they are used: a refused option should not wait for torch.
"""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from patchmi.cli.checks import check_access
from patchmi.cli.options import (
    DEFAULT_ATTACKS,
    Attack,
    AttackOptions,
    Audit,
    Demo,
    JudgeOptions,
    Score,
)
from patchmi.cli.settings import read_settings

if TYPE_CHECKING:
    from patchmi.attacks import AbstractAttack
    from patchmi.audit import Grant
    from patchmi.case import PrivateFiles
    from patchmi.target import TargetFile

_NO_PART_OF_A_RUN = {
    "out",
    "resume",
    "config",
    "init",
    "dry_run",
    "gate",
    "track",
    "rate",
    "images_per_request",
}
"""Options that change nothing that is computed: who must ask more slowly goes on with the same run."""


def chosen_attack(options: AttackOptions) -> "AbstractAttack":
    """The attack with its settings.

    Raises:
        AccessDenied: It needs another access.
        ValueError: A setting is unknown, or does not fit.
    """
    from patchmi.attacks import choose_attack

    check_access(options)
    settings = read_settings(options.setting)
    for name in ("recipe", "step_count", "precision"):
        if (value := getattr(options, name)) is not None:
            settings[name] = value
    attack = choose_attack(options.attack or DEFAULT_ATTACKS[options.access], settings)
    attack.check_access(options.access)  # before anything is opened
    return attack


def grant_of(options: AttackOptions) -> "Grant":
    """What the attack is allowed."""
    from patchmi.audit import Grant
    from patchmi.target import OutputMode

    mode = OutputMode(options.top_k, options.decimals, options.noise, options.temperature)
    return Grant(options.access, options.budget, mode, options.rate)


def target_file(options: Audit | Attack | Score) -> "TargetFile":
    """Where the model is, and how it is opened.

    Raises:
        ValueError: None is named.
    """
    from patchmi.target import TargetFile

    if options.target is None:
        raise ValueError("--target: name the model, as in `patchmi audit --target model.safetensors …`")
    return TargetFile(
        options.target,
        architecture=options.architecture,
        weights=options.weights,
        class_names=options.class_names,
        image_shape=options.image_shape,
        mean=options.mean,
        std=options.std,
        trust_model=options.trust_model,
        class_count=options.class_count,
        input_name=options.input_name,
        pixel_type=options.pixel_type,
        images_per_request=options.images_per_request,
        images_per_second=options.rate,
        sees_private=isinstance(options, JudgeOptions) and options.send_held_out,
    )


def private_files(options: JudgeOptions) -> "PrivateFiles | None":
    """Where the private images are; None where there are none.

    Raises:
        ValueError: Held-out images are named alone.
    """
    from patchmi.case import PrivateFiles

    if options.private is None:
        if options.held_out is not None:
            raise ValueError("--held-out: belongs to --private; give both")
        return None
    return PrivateFiles(
        options.private,
        options.held_out,
        options.held_out_share,
        options.max_bad,
        options.show_private,
    )


def run_config(options: Demo | Audit | Attack | Score) -> dict[str, Any]:
    """The options that a result depends on; the others as null."""
    return {name: None if name in _NO_PART_OF_A_RUN else value for name, value in asdict(options).items()}
