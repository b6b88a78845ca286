"""Numbers that a command refuses before it opens anything."""

import math
from typing import Any

from patchmi.cli.options import Attack, AttackOptions, Audit, Score


def check_attack(options: AttackOptions) -> None:
    """Refuse counts of an attack that make no run.

    Raises:
        ValueError: Naming the option.
    """
    check_counts(options, "seeds", "public_count", "step_count", "budget")
    check_counts(options, "count_per_class", least=4)  # a measure of variety looks at 3 neighbours


def check_access(options: AttackOptions) -> None:
    """Refuse options of a black box where there is none.

    Raises:
        ValueError: Naming the first.
    """
    check_rate(options.rate)
    for name in ("top_k", "decimals", "noise", "temperature", "rate"):
        default = AttackOptions.__dataclass_fields__[name].default
        if getattr(options, name) != default and options.access == "white-box":
            raise ValueError(
                f"--{name.replace('_', '-')}: is how a black box answers; add --access score, or label"
            )


def check_rate(rate: float | None) -> None:
    """Refuse a rate at which nothing is ever sent.

    Raises:
        ValueError: Naming the option.
    """
    if rate is not None and not 0 < rate < math.inf:
        raise ValueError(f"--rate {rate:g}: give more than 0 images a second, or leave it out")


def check_address(options: Audit | Attack | Score) -> None:
    """Refuse what an address cannot give, before it is asked, and options of an address where there is none.

    Raises:
        ValueError: Naming the option.
    """
    from patchmi.target import is_address

    check_counts(options, "class_count", "images_per_request")
    if options.target is not None and is_address(options.target):
        if isinstance(options, AttackOptions) and options.access == "white-box":
            raise ValueError(
                f"--target {options.target}: an address only answers; add --access score, or label"
            )
        return
    for name in ("input_name", "pixel_type", "images_per_request", "send_held_out"):
        default = Score.__dataclass_fields__[name].default
        if getattr(options, name, default) != default:
            raise ValueError(f"--{name.replace('_', '-')}: belongs to a --target at an address, https://…")
    if isinstance(options, Score) and options.rate is not None:
        raise ValueError("--rate: belongs to a --target at an address, https://…")


def check_counts(options: Any, *names: str, least: int = 1) -> None:
    """Refuse options below `least`; those that are not set pass.

    Raises:
        ValueError: Naming the first.
    """
    for name in names:
        count = getattr(options, name)
        if count is not None and count < least:
            raise ValueError(f"--{name.replace('_', '-')} {count}: give {least} or more")


def check_shares(options: Any, *names: str) -> None:
    """Refuse options that are no shares; those that are not set pass.

    Raises:
        ValueError: Naming the first.
    """
    for name in names:
        share = getattr(options, name)
        if share is None:
            continue
        # A split needs something on both sides; that for validation may be left out altogether.
        may_be_none, may_be_all = name != "held_out_share", name not in ("held_out_share", "validation_share")
        if not (0 < share < 1 or (share == 0 and may_be_none) or (share == 1 and may_be_all)):
            raise ValueError(f"--{name.replace('_', '-')} {share:g}: give a share between 0 and 1")
