"""What a suite file says is what is run, and every mistake in it is one line that names file and key."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.suite.quarters import ADDED, SUITE

from patchmi.attacks import PatchMI
from patchmi.suite import plan_jobs, read_suite
from patchmi.suite.file import load_suite, save_suite

Write = Callable[[str], Path]
OURS = sorted((Path(__file__).parents[2] / "suites").glob("*.toml"))


def test_a_suite_file_is_read_whole(write: Write, images: Path) -> None:
    suite = read_suite(write(SUITE + ADDED), data=images, command="patchmi suite run it")
    assert (suite.title, suite.seeds, suite.count_per_class, suite.threads) == ("Quarters", 2, 8, 1)
    assert repr(suite.memory_gb) == "1.0"
    target = suite.targets["quarters"]
    assert (target.private, target.image_shape, target.width) == ("data:quarters.npz", (1, 16, 16), 4)
    assert suite.locate(target.private) == str(images / "quarters.npz")
    assert suite.attacks["strong"].made() == PatchMI(
        step_count=30, attack_weight=3.0, students=False, weights=False, selection=False
    )
    assert [entry.scores for entry in suite.published] == [{"judge_top1": 0.4754}]
    assert suite.curves[0].attacks == ("weak", "strong")
    assert list(suite.rows()) == [("quarters", name, "blobs", "none") for name in ("weak", "strong")]
    assert (suite.origin.command, suite.origin.small_note) == ("patchmi suite run it", None)


def test_what_is_kept_beside_the_cells_is_what_was_read(write: Write, images: Path, tmp_path: Path) -> None:
    suite = read_suite(write(SUITE + ADDED), data=images, small=True)
    save_suite(tmp_path, suite)
    assert load_suite(tmp_path) == suite


def test_the_small_form_changes_what_it_names_and_nothing_beside(write: Write, images: Path) -> None:
    path = write(SUITE + ADDED)
    full, small = (read_suite(path, data=images, small=is_small) for is_small in (False, True))
    assert (full.seeds, small.seeds) == (2, 1)
    assert (full.attacks["weak"].settings["step_count"], small.attacks["weak"].settings["step_count"]) == (
        8,
        4,
    )
    assert small.attacks["weak"].settings == full.attacks["weak"].settings | {"step_count": 4}
    assert (small.attacks["strong"], small.targets, small.public) == (
        full.attacks["strong"],
        full.targets,
        full.public,
    )
    assert (small.origin.small_note, full.origin.small_note) == ("fewer steps", None)


def test_a_mistake_in_the_small_form_does_not_wait_until_it_is_asked_for(write: Write, images: Path) -> None:
    with pytest.raises(ValueError, match=r"with \[small\]: attacks.weak: .*no setting steps"):
        read_suite(write(SUITE + "\nsteps = 4"), data=images)


def test_without_a_data_folder_the_hub_is_taken(write: Write, images: Path) -> None:
    text = SUITE.replace('"data:quarters.npz"', '"data:quarters.npz"\nhub = "hub:somebody/quarters"')
    text = text.replace('"data:blobs.npz"', '"strokes"')
    suite = read_suite(write(text))
    assert suite.targets["quarters"].private == "hub:somebody/quarters"
    assert suite.locate("hub:somebody/quarters") == "hub:somebody/quarters"
    assert suite.locate("strokes") == "strokes"
    assert read_suite(write(text), data=images).targets["quarters"].private == "data:quarters.npz"


def test_paths_count_from_where_the_suite_was_read(
    write: Write, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(SUITE.replace('"data:blobs.npz"', '"mine/blobs.npz"'))
    monkeypatch.chdir(tmp_path)
    save_suite(tmp_path, read_suite(path.name, data=images))
    monkeypatch.chdir("/")
    assert load_suite(tmp_path).locate("mine/blobs.npz") == str(tmp_path / "mine/blobs.npz")
    assert load_suite(tmp_path).locate("/there.npz") == "/there.npz"


MISTAKES = {
    "seeds = 2": {
        "seed = 2": "no key seed; is it seeds?",
        'seeds = "2"': "seeds = '2' is not a whole number",
        "seeds = true": "seeds = True is not a whole number",
        "seeds = 0": "seeds = 0: give 1 or more",
        "seeds = 2\norigin = {}": "no key origin",
        "seeds = ": "cannot be read as TOML",
    },
    "count_per_class = 8": {"count_per_class = 3": "count_per_class = 3: give 4 or more"},
    "memory_gb = 1": {
        "memory_gb = -1.5": "memory_gb must be above 0",
        "threads = 0": "threads = 0: give 1 or more",
        "[defences.wall]": "defences.wall: defence wall: there is none of this name; give one of none, ",
    },
    'title = "Quarters"': {"": "title is missing"},
    "[targets.quarters]": {
        '[targets."a/b"]': "targets: 'a/b' is no name",
        '[targets.".."]': "targets: '..' is no name",
        '[targets.""]': "targets: '' is no name",
    },
    "image_shape = [1, 16, 16]": {
        "image_shape = [1, 16]": "targets.quarters: image_shape = [1, 16] is not a list of 3 whole numbers",
        'image_shape = [1, 16, "a"]': "image_shape = [1, 16, 'a'] is not a list of 3 whole numbers",
        "image_shape = [1, 0, 16]": "image_shape: give channels, height and width",
        "": "image_shape is missing",
    },
    'architecture = "resnet10"': {
        'architecture = "resnet1"': "targets.quarters.architecture = 'resnet1' is none of ours",
        "": "targets.quarters.architecture is missing",
        'architecture = "resnet10"\nmodel = "m.pt"': "disjoint_share: a finished model",
        'architecture = "resnet10"\nmean = [0.5]': "mean and std belong to a finished `model`",
    },
    "disjoint_share = 0.3": {
        "disjoint_share = 1.0": "shares, below 1",
        'disjoint_share = 0.3\ndisjoint = "data:other.npz"': "disjoint and disjoint_share each make",
        "disjoint = 3": "disjoint = 3",
    },
    "judge_steps = 40": {"judge_steps = 0": "targets.quarters.judge_steps = 0"},
    "show_private = true": {"show_private = 1": "show_private = 1 is not true or false"},
    "[public.blobs]": {"[public.blobs]\ncount = 0": "public.blobs.count = 0"},
    'source = "data:blobs.npz"': {
        'source = "unused:halves"': "public.blobs.source: there is no 'halves' among targets: quarters",
        'source = "unused:quarters"': "targets.quarters leaves no images unused; give it a private_count",
    },
    'attack = "patch-mi"': {
        'attack = "patch-im"': "attacks.weak: attack patch-im: there is none of this name",
        'attack = "patch-mi"\nstepcount = 3': "attacks.weak: attack patch-mi: no setting stepcount",
        'attack = "patch-mi"\npublics = ["glyphs"]': "attacks.weak.publics: there is no 'glyphs'",
        'attack = "patch-mi"\naccess = "label"': "attacks.weak: PatchMI needs white-box access, not label",
        'attack = "patch-mi"\naccess = "grey"': "access = 'grey' is not one of white-box, score, label",
        'attack = "patch-mi"\nbudget = 0': "attacks.weak: budget 0: give 1 image or more",
        "": "attacks.weak: attack is missing",
    },
    "step_count = 8": {'step_count = "many"': "attacks.weak: attack patch-mi: step_count = 'many'"},
    'public = "blobs"': {'public = "glyphs"': "published[0].public: there is no 'glyphs'"},
    "judge_top1 = 0.4754": {
        "top1 = 0.5": "published[0]: there is no 'top1' among scores",
        "judge_top1 = 47.54": "published[0].judge_top1 = 47.54: give a share",
        'judge_top1 = "half"': "published[0]: scores.judge_top1 = 'half' is not a number",
    },
    'target = "quarters"': {'target = "mnist"': "published[0].target: there is no 'mnist'"},
    'attacks = ["weak", "strong"]': {'attacks = ["weak", "none"]': "curves[0].attacks: there is no 'none'"},
    'along = "attack_weight"': {'along = "views"': "curves[0]: attacks.weak has no number for views"},
    'scores = ["judge_top1", "coverage"]': {'scores = ["top"]': "curves[0].scores: there is no 'top'"},
    'note = "fewer steps"': {"note = 3": "small: is a table, and its note a text"},
}
EDITS = [(old, new, said) for old, edits in MISTAKES.items() for new, said in edits.items()]


@pytest.mark.parametrize(("old", "new", "said"), EDITS, ids=[said for *_, said in EDITS])
def test_a_mistake_is_one_line_with_file_and_key(
    write: Write, images: Path, old: str, new: str, said: str
) -> None:
    text = SUITE + ADDED
    assert old in text
    path = write(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(said)) as caught:
        read_suite(path, data=images)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert "\n" not in message


@pytest.mark.parametrize("group", ["targets", "public", "attacks"])
def test_a_suite_without_one_of_its_parts_is_refused(write: Write, images: Path, group: str) -> None:
    lines = SUITE.partition("[small]")[0].replace("[[published]]", "[other]").splitlines()
    kept, own = [], False
    for line in lines:
        own = line.startswith(f"[{group}") or (own and not line.startswith("["))
        if line == "[other]":
            break
        kept += [] if own else [line]
    with pytest.raises(ValueError, match=f"{group} is missing"):
        read_suite(write("\n".join(kept)), data=images)
    with pytest.raises(ValueError, match=f"{group}: is empty"):
        read_suite(write("\n".join([f"{group} = {{}}", *kept])), data=images)


def test_what_cannot_be_found_is_named(write: Write, images: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"none\.toml: no such suite file"):
        read_suite(tmp_path / "none.toml")
    with pytest.raises(ValueError, match=r"private = 'data:quarters\.npz': give --data FOLDER, or a `hub`"):
        read_suite(write(SUITE))
    with pytest.raises(ValueError, match=r"--data .*nowhere: no such folder"):
        read_suite(write(SUITE), data=tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"has no table \[small\]"):
        read_suite(write(SUITE.partition("[small]")[0]), data=images, small=True)
    with pytest.raises(ValueError, match="holds no suite"):
        load_suite(tmp_path)
    (tmp_path / "suite.toml.json").write_text(json.dumps({"title": "from later", "colours": 3}))
    with pytest.raises(ValueError, match=r"suite\.toml\.json: no key colours"):
        load_suite(tmp_path)


def test_without_a_data_folder_the_disjoint_judges_images_need_a_source_that_has_no_hub_beside_it(
    write: Write,
) -> None:
    text = SUITE.replace('"data:quarters.npz"', '"quarters.npz"').replace('"data:blobs.npz"', '"blobs.npz"')
    text = text.replace("disjoint_share = 0.3", 'disjoint = "data:others.npz"')
    with pytest.raises(ValueError, match=r"disjoint = .+: give --data FOLDER, or a path, or hub:OWNER/NAME"):
        read_suite(write(text))


@pytest.mark.parametrize("path", OURS, ids=lambda path: path.stem)
def test_every_suite_of_ours_has_no_fault_and_a_small_form_of_fewer_runs(path: Path, tmp_path: Path) -> None:
    whole, small = (read_suite(path, data=tmp_path, small=small) for small in (False, True))
    assert len(plan_jobs(small)) < len(plan_jobs(whole))
    assert small.origin.small_note
    assert whole.origin.small_note is None
