"""A user's model and images, from files to a case, and whole commands on them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from patchmi.audit import Pictures
from patchmi.case import (
    Course,
    PrivateFiles,
    in_order_of,
    open_case,
    open_judges,
    open_pictures,
    open_private,
    train_target,
)
from patchmi.case.judges import _parts as parts_of
from patchmi.cli import main
from patchmi.data import SourceInvalid
from patchmi.defences import Mid, Rolss, Rounding, TlDmi
from patchmi.machine import device
from patchmi.report import read_result
from patchmi.target import TargetFile, TargetInvalid, WhiteBox
from patchmi.types import silent

NAMES = ("1-north-west", "2-north-east", "10-south-west", "11-south-east")
"""In natural order; by the alphabet the last two come first."""
Quarters = Callable[..., Any]


def write_folders(folder: Path, labelled: Any, names: tuple[str, ...]) -> Path:
    """Class folders of PNG files."""
    images, labels = labelled
    for number, (image, label) in enumerate(zip(images, labels.tolist(), strict=True)):
        place = folder / names[label]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(place / f"{number:03}.png")
    return folder


def write_weights(path: Path, model: nn.Module, prefix: str = "") -> None:
    save_file({prefix + name: value.contiguous() for name, value in model.state_dict().items()}, path)


@pytest.fixture(scope="module")
def home(fit: Callable[..., nn.Module], quarters: Quarters, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's folder: model, training and held-out images."""
    home = tmp_path_factory.mktemp("home")
    model = fit("resnet10", width=4, step_count=100)
    write_weights(home / "model.safetensors", model, prefix="module.")
    write_folders(home / "train", quarters(64, seed=1), NAMES)
    write_folders(home / "test", quarters(32, seed=2), NAMES)
    for seed, name in enumerate(("vgg6", "lenet", "allconv")):
        judge = fit(name, width=8, step_count=100, seed=seed)
        weights = {part: value.contiguous() for part, value in judge.state_dict().items()}
        save_file(weights, home / f"{name}.safetensors")
    return home


def model_of(home: Path, **changes: Any) -> TargetFile:
    given = {"architecture": "patchmi:resnet10", "image_shape": (1, 16, 16), **changes}
    return TargetFile(str(home / "model.safetensors"), **given)


def test_a_case_is_the_model_with_the_classes_of_the_folders_in_natural_order(home):
    case = open_case(model_of(home), PrivateFiles(str(home / "train"), str(home / "test")))
    assert case.target.class_names == NAMES
    assert case.private is not None
    assert len(case.private.train_images) == 64
    assert len(case.private.held_out_images) == 32
    said = " ".join(case.findings.target)
    assert "module." in said
    assert "0 = 1-north-west, 1 = 2-north-east, 2 = 10-south-west" in said
    assert len(case.target_digest) == 64


def test_folders_named_as_the_model_names_its_classes_are_matched_by_name(home, quarters, tmp_path):
    # The same images in folders that sort otherwise: c, a, d, b for the model's classes 0 to 3.
    names = ("c", "a", "d", "b")
    write_folders(tmp_path / "train", quarters(32, seed=1), names)
    case = open_case(model_of(home, class_names=names), PrivateFiles(str(tmp_path / "train")))
    assert case.target.class_names == names
    assert case.private is not None
    assert "matched by their names" in " ".join(case.findings.target)
    hits = case.target.model(case.private.train_images).argmax(dim=1) == case.private.train_labels
    assert hits.double().mean() > 0.8


def test_a_function_of_the_user_s_is_told_the_number_of_classes(home, tmp_path, monkeypatch):
    (tmp_path / "my_network.py").write_text(
        "from patchmi.networks import ARCHITECTURES\n"
        "def make(num_classes):\n"
        "    return ARCHITECTURES['resnet10'](class_count=num_classes, channel_count=1, width=4)\n"
    )
    monkeypatch.chdir(tmp_path)
    case = open_case(model_of(home, architecture="my_network:make"), PrivateFiles(str(home / "train")))
    assert case.target.class_names == NAMES


def test_a_misread_model_stops_before_anything_is_attacked(home, quarters, tmp_path):
    names = ("b", "a", "d", "c")  # in an order that is not the model's
    write_folders(tmp_path / "train", quarters(32, seed=1), names)
    with pytest.raises(TargetInvalid, match="accuracy"):
        open_case(model_of(home), PrivateFiles(str(tmp_path / "train")))


def test_without_held_out_images_a_share_is_held_out_and_said_so(home):
    private, notes = open_private(
        PrivateFiles(str(home / "train"), held_out_share=0.25), image_shape=(1, 16, 16)
    )
    assert (len(private.train_images), len(private.held_out_images)) == (48, 16)
    assert any("Held-out images: a share of 0.25 of train;" in note for note in notes)


def test_a_test_part_of_the_source_is_held_out(home, tmp_path):
    for part in ("train", "test"):
        (tmp_path / part).symlink_to(home / part, target_is_directory=True)
    images = {part: list((home / part).rglob("*.png")) for part in ("train", "test")}
    copied = tmp_path / "copied"
    for part, files in images.items():
        for file in files:
            place = copied / part / file.parent.name
            place.mkdir(parents=True, exist_ok=True)
            (place / file.name).write_bytes(file.read_bytes())
    private, notes = open_private(PrivateFiles(str(copied)), image_shape=(1, 16, 16))
    assert (len(private.train_images), len(private.held_out_images)) == (64, 32)
    assert "Held-out images: the part 'test' of copied" in notes
    assert any(note.startswith("Held-out images: 4 classes: 0 = 1-north-west") for note in notes)


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (("a", "b", "c", "c"), "has 3 classes (a, b, c), the target answers for 4"),
        ((*NAMES[:3], "12"), "are not among the training images'"),
    ],
)
def test_classes_that_do_not_fit_are_named(names, said, home, quarters, tmp_path):
    other = write_folders(tmp_path / "other", quarters(32, seed=1), names)
    files = PrivateFiles(str(home / "train"), str(other)) if "not among" in said else PrivateFiles(str(other))
    with pytest.raises(SourceInvalid) as error:
        open_case(model_of(home), files)
    assert said in str(error.value)


def test_a_class_with_too_few_images_is_named(home, quarters, tmp_path):
    images, labels = quarters(32, seed=1)
    few = (labels != 2) | (torch.arange(32) < 8)
    folder = write_folders(tmp_path / "few", (images[few], labels[few]), NAMES)
    with pytest.raises(SourceInvalid, match="fewer than 4 training images of 10-south-west"):
        open_case(model_of(home), PrivateFiles(str(folder), str(home / "test")))


def test_judges_are_opened_like_targets_and_checked(home):
    private, _ = open_private(PrivateFiles(str(home / "train"), str(home / "test")), image_shape=(1, 16, 16))
    judges, _ = open_judges(
        (f"patchmi:vgg6@{home}/vgg6.safetensors",),
        private,
        class_names=NAMES,
        image_shape=(1, 16, 16),
    )
    (judge,) = judges
    assert judge.architecture == "patchmi:vgg6"
    assert judge.sha256 is not None
    hits = judge.model(private.held_out_images).argmax(dim=1) == private.held_out_labels
    assert hits.double().mean() > 0.8
    with pytest.raises(TargetInvalid, match="answers 4 scores an image, and there are 3 class names"):
        open_judges(
            (f"patchmi:vgg6@{home}/vgg6.safetensors",),
            None,
            class_names=NAMES[:3],
            image_shape=(1, 16, 16),
        )


@pytest.mark.parametrize(
    ("specification", "parts"),
    [
        ("a.onnx", ("a.onnx", None)),
        ("timm:resnet18@a.pt", ("a.pt", "timm:resnet18")),
        ("my.nets:make@b@c.pt", ("b@c.pt", "my.nets:make")),
        ("hub:OWNER/NAME@v1", ("hub:OWNER/NAME@v1", None)),
        ("odd@name.onnx", ("odd@name.onnx", None)),
    ],
)
def test_a_judge_s_architecture_stands_before_the_first_at(specification, parts, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("odd@name.onnx").write_bytes(b"")
    assert parts_of(specification) == parts


def test_pictures_of_another_tool_are_opened_from_npz_and_from_folders(home, quarters, tmp_path):
    images, labels = quarters(32, seed=3)
    pixels = (images[:, 0] * 255).round().byte().numpy()
    np.savez(tmp_path / "theirs.npz", images=pixels, labels=labels.numpy())
    write_folders(tmp_path / "theirs", (images, labels), NAMES)
    options = {"public": "strokes", "public_count": 5, "max_bad_share": 0.0}
    from_npz, _ = open_pictures(str(tmp_path / "theirs.npz"), untrained=None, **options)
    from_folders, _ = open_pictures(
        str(tmp_path / "theirs"), untrained=str(tmp_path / "theirs.npz"), **options
    )
    assert torch.equal(from_npz.images * 255, torch.from_numpy(pixels).float()[:, None])
    assert torch.equal(from_npz.labels, labels)
    assert from_folders.class_names == NAMES
    assert from_folders.labels.bincount().tolist() == [8, 8, 8, 8]
    assert from_folders.untrained is not None
    assert from_folders.public is not None
    assert from_folders.public.images.shape == (5, 1, 16, 16)


def test_pictures_are_brought_into_the_order_of_the_private_classes_by_name(quarters):
    images, labels = quarters(32, seed=3)
    names = ("d", "a", "c", "b")
    pictures = Pictures(images, labels, torch.zeros_like(labels), names, untrained=(images, labels))
    ordered, found = in_order_of(("a", "b", "c", "d"), pictures)
    assert found == ()
    assert [ordered.class_names[label] for label in ordered.labels] == [names[label] for label in labels]
    assert ordered.untrained is not None
    assert torch.equal(ordered.untrained[1], ordered.labels)
    by_number, found = in_order_of(("w", "x", "y", "z"), pictures)
    assert found == ("the pictures: classes were matched by their order: d = w, a = x, c = y, b = z",)
    assert (by_number.class_names, by_number.labels.tolist()) == (("w", "x", "y", "z"), labels.tolist())
    with pytest.raises(SourceInvalid, match=r"4 classes \(d, a, c, b\) where 3 are needed"):
        in_order_of(("a", "b", "c"), pictures)
    with pytest.raises(SourceInvalid, match="classes d are not among a, b, c, e; name all alike"):
        in_order_of(("a", "b", "c", "e"), pictures)


# Whole commands


def audit_command(home: Path, out: Path, *more: str) -> list[str]:
    return [
        "audit", "--target", f"{home}/model.safetensors", "--architecture", "patchmi:resnet10",
        "--private", f"{home}/train", "--held-out", f"{home}/test", "--public-count", "40",
        "--step-count", "3", "--count-per-class", "4", "--seeds", "1", "--judge-steps", "30",
        "--out", str(out), *more,
    ]  # fmt: skip


def given_judges(home: Path) -> list[str]:
    names = ("vgg6", "lenet", "allconv")
    return [part for name in names for part in ("--judge", f"patchmi:{name}@{home}/{name}.safetensors")]


@pytest.fixture(scope="module")
def audited(home: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[int, Path]:
    out = tmp_path_factory.mktemp("audited") / "run"
    return main(audit_command(home, out, "--gate", *given_judges(home))), out


def test_a_user_s_audit_ends_with_the_gate_s_code_and_leaves_the_contract_s_files(audited):
    code, out = audited
    result = read_result(out / "result.json")
    assert result["verdict"]["word"] == "INCONCLUSIVE"
    assert code == 3
    names = {
        "config.json",
        "reconstructions.safetensors",
        "result.json",
        "report.html",
        "report.sarif",
        "junit.xml",
    }
    assert names <= {path.name for path in out.iterdir()}
    assert [judge["architecture"] for judge in result["judges"]] == [
        "patchmi:vgg6",
        "patchmi:lenet",
        "patchmi:allconv",
    ]
    assert any("module." in finding for finding in result["findings"]["target"])
    assert result["target"]["image_shape"] == [1, 16, 16]


def test_without_a_gate_the_same_run_ends_with_0(audited, home, capsys):
    _, out = audited
    assert main(audit_command(home, out, "--resume", *given_judges(home))) == 0
    printed, said = capsys.readouterr()
    assert printed.startswith("INCONCLUSIVE: ")
    assert printed.endswith("report.html\n")
    assert "patchmi: " in said


def test_other_images_under_the_same_path_refuse_to_resume(audited, home, tmp_path, capsys, quarters):
    _, out = audited
    first = next((home / "test" / NAMES[0]).iterdir())
    before = first.read_bytes()
    try:
        Image.fromarray(np.zeros((16, 16), np.uint8)).save(first)
        assert main(audit_command(home, out, "--resume", *given_judges(home))) == 2
    finally:
        first.write_bytes(before)
    assert "private.held_out" in capsys.readouterr().err


BLACK_BOX = ["--access", "label", "--budget", "150", "--setting", "fit_step_count=3"]


def test_an_audit_with_labels_only_counts_what_it_asks_and_says_so(home, tmp_path, capsys):
    out = tmp_path / "labels"
    assert main(audit_command(home, out, *BLACK_BOX, "--seeds", "2", *given_judges(home))) == 0
    result = read_result(out / "result.json")
    assert (result["attack"]["name"], result["threat"]["access"]) == ("PatchTransfer", "label")
    box = result["attack"]["black_box"]
    assert box["budget"] == 150
    assert box["asked"] == sum(box["stages"].values()) == sum(box["answered"]) <= 2 * 150
    assert box["asked"] == result["attack"]["queries"]["images"]
    assert result["attack"]["queries"]["backward"] == 0
    for seed in range(2):
        asked = [entry["queries"] for entry in result["history"] if entry["seed"] == seed]
        assert asked == sorted(asked)
        assert 0 < asked[-1] <= 150
    assert "label access" in result["verdict"]["sentence"]
    assert {entry["attack"] for entry in result["not_tested"] if entry["scope"] == "in"} == {
        "Model inversion with the model's weights",
        "Model inversion with class scores only",
    }
    page = (out / "report.html").read_text()
    assert "images sent to the model" in page
    assert "for public images" in page
    # The control has no target: it leaves no question behind.
    assert {path.name for path in out.rglob("*.queries")} == {"seed-0.queries", "seed-1.queries"}
    capsys.readouterr()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--attack", "general", "--access", "label"], "GeneralMI needs white-box access, not label: choose"),
        (["--attack", "patch-transfer"], "PatchTransfer needs label or score access, not white-box: choose"),
        (["--top-k", "1"], "--top-k: is how a black box answers; add --access score, or label"),
    ],
)
def test_an_attack_and_an_access_that_do_not_fit_are_refused_at_once(more, said, home, tmp_path, capsys):
    assert main(audit_command(home, tmp_path / "run", *more)) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_estimates_each_stage_and_leaves_nothing(home, tmp_path, capsys):
    assert main(audit_command(home, tmp_path / "run", "--dry-run", "--positive-control")) == 0
    printed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in printed] == ["judges", "attack", "control", "scores", "all", "memory"]
    seconds = [float(line.split()[1]) for line in printed[:-1]]
    assert seconds[-1] == pytest.approx(sum(seconds[:-1]), abs=3)
    assert not (tmp_path / "run").exists()


def test_attack_leaves_its_pictures_for_score_and_tells_its_losses(home, tmp_path, capsys):
    pytest.importorskip("tensorboard")
    out = tmp_path / "attacked"
    command = [
        "attack", "--target", f"{home}/model.safetensors", "--architecture", "patchmi:resnet10",
        "--image-shape", "1", "16", "16", "--public-count", "40", "--step-count", "12", "--seeds", "2",
        "--count-per-class", "4", "--track", "tensorboard", "--out", str(out),
    ]  # fmt: skip
    assert main(command) == 0
    assert capsys.readouterr().out == f"{out}/reconstructions.safetensors\n"
    assert not (out / "result.json").exists()
    tags = {tag for file in out.glob("tensorboard/*/*") for tag in tags_of(file)}
    assert {"attack/seed-0/prior", "attack/seed-1/attack", "attack/seed-1/batch_norm"} <= tags
    assert main([*command, "--resume"]) == 0
    score = ["score", f"{out}/reconstructions.safetensors", "--private", f"{home}/train"]
    assert main([*score, "--out", f"{tmp_path}/scored", "--judge-steps", "20"]) == 0
    result = read_result(tmp_path / "scored/result.json")
    assert result["attack"]["seeds"] == [0, 1]
    assert result["scores"]["judge_top1"]["n"] == 8


def tags_of(file: Path) -> list[str]:
    """What a TensorBoard file holds, by TensorBoard's own reader."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    return [value.tag for event in EventFileLoader(str(file)).Load() for value in event.summary.value]


def test_score_judges_another_tool_s_pictures_from_the_command_line(home, quarters, tmp_path, capsys):
    images, labels = quarters(32, seed=3)
    np.savez(
        tmp_path / "theirs.npz", images=(images[:, 0] * 255).round().byte().numpy(), labels=labels.numpy()
    )
    command = [
        "score", f"{tmp_path}/theirs.npz", "--private", f"{home}/train", "--held-out", f"{home}/test",
        "--made-by", "A tool", "--out", f"{tmp_path}/run", "--gate", *given_judges(home),
    ]  # fmt: skip
    assert main(command) == 3
    result = read_result(tmp_path / "run/result.json")
    assert result["attack"]["name"] == "A tool"
    assert result["scores"]["judge_top1"]["value"] > 0.8
    assert [entry["name"] for entry in result["classes"]] == list(NAMES)


def test_a_trained_model_opens_as_a_target(home, tmp_path, capsys):
    out = tmp_path / "mine.safetensors"
    command = ["train", "--private", f"{home}/train", "--out", str(out), "--step-count", "60"]
    assert main(command) == 0
    assert capsys.readouterr().out == f"{out}\n"
    case = open_case(TargetFile(str(out)), PrivateFiles(str(home / "train"), str(home / "test")))
    assert case.target.architecture == "patchmi:resnet10"
    assert case.target.image_shape == (1, 16, 16)
    assert case.target.class_names == NAMES


def test_a_target_that_grants_scores_only_is_refused_before_anything_is_trained(home, tmp_path, capsys):
    onnx = pytest.importorskip("onnx")
    helper = onnx.helper
    graph = helper.make_graph(
        [helper.make_node("Flatten", ["x"], ["f"]), helper.make_node("MatMul", ["f", "w"], ["y"])],
        "linear",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 1, 16, 16])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4])],
        [onnx.numpy_helper.from_array(quarter_weights(), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "linear.onnx")
    command = audit_command(home, tmp_path / "run", *given_judges(home))
    command[command.index("--target") + 1] = f"{tmp_path}/linear.onnx"
    del command[3:5]  # an ONNX file brings its architecture
    assert main(command) == 2
    err = capsys.readouterr().err
    assert "linear.onnx grants score access only, this attack needs white-box access" in err
    assert err.endswith("give the model's weights, or --access score\n")
    assert not (tmp_path / "run").exists()
    command += ["--access", "score", "--budget", "120", "--setting", "fit_step_count=3", "--dry-run"]
    assert main(command) == 0


def quarter_weights() -> np.ndarray:
    """For each class the sum of its quarter's pixels."""
    quarter = np.zeros((4, 16, 16), np.float32)
    for label in range(4):
        row, column = 8 * (label // 2), 8 * (label % 2)
        quarter[label, row : row + 8, column : column + 8] = 1
    return quarter.reshape(4, 256).T.copy()


def scored_pictures(quarters, path: Path, count: int = 32) -> str:
    images, labels = quarters(count, seed=3)
    np.savez(path, images=(images[:, 0] * 255).round().byte().numpy(), labels=labels.numpy())
    return str(path)


def test_score_does_not_resume_on_other_images_or_pictures(home, quarters, tmp_path, capsys):
    theirs = scored_pictures(quarters, tmp_path / "theirs.npz")
    private = write_folders(tmp_path / "private", quarters(64, seed=1), NAMES)
    command = [
        "score", theirs, "--private", str(private), "--held-out", f"{home}/test", "--judge-steps", "5",
        "--out", f"{tmp_path}/run", "--resume",
    ]  # fmt: skip
    assert main(command) == 0
    scored_pictures(quarters, tmp_path / "theirs.npz", count=48)
    assert main(command) == 2
    assert "pictures: " in capsys.readouterr().err
    scored_pictures(quarters, tmp_path / "theirs.npz")
    first = next((private / NAMES[0]).iterdir())
    first.rename(private / NAMES[1] / first.name)
    assert main(command) == 2
    assert "private.train" in capsys.readouterr().err


def test_judges_are_not_taken_from_a_folder_whose_private_images_were_exchanged(
    home, quarters, tmp_path, capsys
):
    private = write_folders(tmp_path / "private", quarters(64, seed=1), NAMES)
    command = audit_command(home, tmp_path / "run", "--resume")
    command[command.index("--private") + 1] = str(private)
    command[command.index("--judge-steps") + 1] = "8"
    from patchmi.cli import commands

    def stop(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(commands, "_tracking", stop)  # right after the folder was taken
        assert main(command) == 130
    next((private / NAMES[0]).iterdir()).unlink()
    assert main(command) == 2
    assert "private.train" in capsys.readouterr().err


def test_held_out_images_that_are_training_images_are_refused(home):
    with pytest.raises(SourceInvalid, match="64 of 64 held-out images are training images too"):
        open_private(PrivateFiles(str(home / "train"), str(home / "train")), image_shape=(1, 16, 16))


def test_pictures_without_the_target_must_be_of_the_same_classes(home, quarters, tmp_path, capsys):
    theirs = scored_pictures(quarters, tmp_path / "theirs.npz")
    images, labels = quarters(32, seed=3)
    np.savez(tmp_path / "two.npz", images=(images[:, 0] * 255).byte().numpy(), labels=(labels % 2).numpy())
    command = ["score", theirs, "--private", f"{home}/train", "--untrained", f"{tmp_path}/two.npz"]
    assert main([*command, "--out", f"{tmp_path}/run"]) == 2
    err = capsys.readouterr().err
    assert f"--untrained {tmp_path}/two.npz: 2 classes (0, 1) where 4 are needed" in err


def test_pictures_of_more_classes_than_the_target_has_are_refused(home, tmp_path, capsys):
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 16, 16), dtype=np.uint8)
    np.savez(tmp_path / "five.npz", images=pixels, labels=np.arange(40) % 5)
    model = ["--target", f"{home}/model.safetensors", "--architecture", "patchmi:resnet10"]
    assert main(["score", f"{tmp_path}/five.npz", *model, "--out", f"{tmp_path}/run"]) == 2
    assert "5 classes (0, 1, 2, 3, 4) where 4 are needed" in capsys.readouterr().err


def test_a_dry_run_refuses_what_the_run_would(home, tmp_path, capsys):
    one = ["--judge", f"patchmi:vgg6@{home}/vgg6.safetensors"]
    itself = ["--judge", f"patchmi:resnet10@{home}/model.safetensors"]
    for judges, said in (
        (one, "1 judge, but a reconstruction needs the votes of 2"),
        (itself, "is the target itself"),
    ):
        assert main(audit_command(home, tmp_path / "run", "--dry-run", *judges)) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_public_images_that_are_private_are_said_at_once(home, tmp_path, capsys):
    command = audit_command(home, tmp_path / "run", "--dry-run", "--public", f"{home}/train")
    assert main(command) == 0
    assert "Public images: 40 are private ones too" in capsys.readouterr().err


def test_a_mistake_of_patchmi_s_own_is_never_the_code_of_an_exposed_target(monkeypatch, capsys):
    def fail(*_: Any) -> int:
        raise IndexError("a bug")

    monkeypatch.setattr("patchmi.cli.run_command", fail)
    assert main(["data", "inspect", "strokes"]) == 70
    err = capsys.readouterr().err
    assert "IndexError: a bug" in err
    assert err.endswith("please report it with the lines above\n")


# Mistakes


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "--target: name the model"),
        (["--target", "none.pt"], "none.pt"),
        (["--target", "MODEL"], "give --architecture"),
        (["--target", "MODEL", "--architecture", "resnet18"], "--architecture resnet18: give timm:NAME"),
        (["--held-out", "x", "--target", "MODEL"], "--held-out: belongs to --private"),
        (["--target", "MODEL", "--seeds", "0"], "--seeds 0: give 1 or more"),
        (["--target", "MODEL", "--judge-steps", "0"], "--judge-steps 0"),
        (["--target", "MODEL", "--count-per-class", "2"], "--count-per-class 2: give 4 or more"),
        (["--target", "MODEL", "--max-bad", "1.5"], "--max-bad 1.5: give a share between 0 and 1"),
        (["--target", "MODEL", "--held-out-share", "0"], "--held-out-share 0"),
        (["--target", "MODEL", "--declared-accuracy", "97"], "--declared-accuracy 97"),
        (["--target", "MODEL", "--architecture", "patchmi:resnet10", "--private", "no/where"], "no/where"),
        (
            ["--target", "MODEL", "--weights", "w.pt", "--architecture", "patchmi:resnet10"],
            "--weights belongs",
        ),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_a_mistake_is_one_line_and_exit_code_2(options, said, home, tmp_path, capsys):
    given = [option.replace("MODEL", f"{home}/model.safetensors") for option in options]
    assert main(["audit", "--out", str(tmp_path / "run"), *given]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert said in err
    assert err.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_pickle_is_refused_with_4_by_every_option_that_opens_a_model(home, tmp_path, capsys):
    import pickle

    bad = tmp_path / "model.pkl"
    bad.write_bytes(pickle.dumps({"weights": print}))
    as_target = ["audit", "--target", str(bad)]
    as_judge = audit_command(home, tmp_path / "run", "--judge", str(bad))
    for command in (as_target, as_judge):
        assert main(command) == 4
        err = capsys.readouterr().err
        assert "refused: " in err
        assert "pickle" in err
    assert not (tmp_path / "run").exists()


def test_a_result_carries_no_path_of_the_model_s_owner(audited, home):
    _, out = audited
    result = json.loads((out / "result.json").read_text())
    del result["command"]
    assert str(home) not in json.dumps(result)


def test_a_target_is_trained_with_a_defence_and_opened_again(home: Path, tmp_path: Path) -> None:
    out = tmp_path / "mid.safetensors"
    said = train_target(
        str(home / "train"),
        out,
        Course(defence=Mid(0.01), step_count=5, validation_share=0.25),
        image_shape=(1, 16, 16),
        max_bad_share=0.0,
        progress=silent,
    )
    assert said.accuracy is None  # there is no test split beside class folders
    opened = open_case(TargetFile(str(out)), None).target
    assert opened.architecture == "patchmi:resnet10+bottleneck"
    assert len(opened.class_names) == 4
    images = torch.rand(3, 1, 16, 16).to(device())
    assert torch.equal(WhiteBox(opened).logits(images), WhiteBox(opened).logits(images))  # its noise is off


@pytest.mark.parametrize(
    ("course", "words"),
    [
        (lambda: Course(defence=Rounding(1.0)), "changes answers and no network"),
        (lambda: Course(defence=TlDmi(0.5)), "pretraining"),
        (lambda: Course(defence=Rolss(0.8), architecture="lenet"), "residual"),
        (lambda: Course(validation_share=0.001), "leaves none on one side"),
    ],
)
def test_courses_that_cannot_be_taken_are_refused_in_one_line(
    home: Path, tmp_path: Path, course: Callable[[], Course], words: str
) -> None:
    with pytest.raises(ValueError, match=words) as refused:
        train_target(
            str(home / "train"),
            tmp_path / "m.safetensors",
            course(),
            image_shape=(1, 16, 16),
            max_bad_share=0.0,
            progress=silent,
        )
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "m.safetensors").exists()
