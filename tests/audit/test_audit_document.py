"""What a result says of its circumstances."""

import dataclasses
import json

import pytest
import torch

from patchmi.attacks import RECIPES, PatchMI
from patchmi.audit import document
from patchmi.claims import forbidden_claims_in
from patchmi.data import Source


def describe(public, private):
    return document.describe_threat(public, private, access="white-box", release_context="internal")


@pytest.mark.parametrize("shared", [0, 1, 3])
def test_public_images_that_are_private_ones_too_are_counted(world, shared):
    public = torch.cat([world.private.train_images[5 : 5 + shared], world.public.images])
    threat = document.describe_threat(
        Source(public, "both"), world.private, access="white-box", release_context="internal"
    )
    assert threat["public_is_private_overlap"] == shared
    assert threat["public_count"] == 40 + shared
    assert (threat["access"], threat["public"]) == ("white-box", "both")


def test_an_image_in_memory_of_another_layout_is_the_same_image(world):
    shown = world.private.train_images[:4].to(memory_format=torch.channels_last)
    threat = document.describe_threat(
        Source(shown, "shared"), world.private, access="white-box", release_context="internal"
    )
    assert threat["public_is_private_overlap"] == 4


def test_an_attack_is_described_by_all_its_settings():
    said = document.describe(PatchMI(step_count=7, views=False))
    assert set(said) == {field.name for field in dataclasses.fields(PatchMI)}
    assert (said["recipe"], said["step_count"], said["views"], said["n_codes"]) == ("default", 7, False, None)


def test_a_recipe_of_one_s_own_is_described_field_by_field_with_functions_by_their_names():
    own = dataclasses.replace(RECIPES["paper-mnist"], name="own", attack_weight=2.0)
    said = document.describe(PatchMI(own))["recipe"]
    assert (said["name"], said["attack_weight"]) == ("own", 2.0)
    assert said["scales"][0]["patch_size"] == 6
    assert said["views"] == "paper_digit_views"
    assert said["students"] == []
    json.dumps(said)
    assert document.recipe_name(PatchMI(own)) == "own"
    assert document.recipe_name(PatchMI("paper-mnist")) == "paper-mnist"


def test_the_environment_names_the_machine_and_what_it_took():
    said = document.describe_environment()
    assert said["torch"] == torch.__version__
    assert said["threads"] == torch.get_num_threads()
    assert said["precision"] in ("float32", "bfloat16")
    # This process holds torch: more than 50 MB, in bytes and not in kilobytes.
    assert 50e6 < said["peak_memory_bytes"] < 1e12
    assert said["processor"]


@pytest.mark.parametrize(
    ("access", "reasons"),
    [
        ("white-box", ["which grants more", "which grants more"]),
        ("score", ["which is less; more may come out with it", "which grants more"]),
        ("label", ["which is less; more may come out with it"] * 2),
    ],
)
def test_other_accesses_are_named_with_what_they_would_grant(access, reasons):
    said = [entry["reason"] for entry in document.not_tested(access) if "inversion" in entry["attack"]]
    assert len(said) == 2
    assert all(reason.endswith(end) for reason, end in zip(said, reasons, strict=True))


@pytest.mark.parametrize("access", ["white-box", "score", "label"])
def test_what_was_not_tested_is_listed_without_a_claim(access):
    said = document.not_tested(access)
    assert {entry["scope"] for entry in said} == {"in", "out"}
    assert any("inversion" in entry["attack"].lower() for entry in said)
    assert not any(forbidden_claims_in(text) for entry in said for text in entry.values())
