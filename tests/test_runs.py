import hashlib
import json
import logging
import os
import random
import signal
import threading
from pathlib import Path

import pytest
import safetensors
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from patchmi.machine import random_state, restore_random_state, seeded
from patchmi.runs import (
    NO_CHECKPOINT,
    Checkpoint,
    ConfigChanged,
    RunError,
    RunExists,
    RunFolder,
    RunLocked,
    atomic_path,
    atomic_write,
    open_run,
    terminate_as_interrupt,
)

NEVER = 1e9


@pytest.fixture
def run(tmp_path):
    with open_run(tmp_path / "run", config={"seed": 0}, resume=False) as opened:
        yield opened


def checkpoint_in(folder: Path, every_seconds: float = 0.0) -> Checkpoint:
    files = (folder / "train.0.safetensors", folder / "train.1.safetensors")
    return Checkpoint(files, every_seconds=every_seconds)


def names_in(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def bits(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.contiguous().flatten().view(torch.uint8)


def identical(left, right) -> bool:
    """Equal values of equal types all the way down; tensors equal bit by bit, in strides and type."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        return (
            left.dtype == right.dtype
            and left.shape == right.shape
            and left.stride() == right.stride()
            and bits(left).equal(bits(right))
        )
    if isinstance(left, dict):
        same_keys = [(type(key), key) for key in left] == [(type(key), key) for key in right]
        return same_keys and all(identical(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(identical, left, right))
    return repr(left) == repr(right)


# Files


def test_atomic_write_replaces_the_whole_file_and_makes_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file.txt"
    atomic_write(path, b"long old content")
    atomic_write(path, b"new")
    assert path.read_bytes() == b"new"
    assert names_in(tmp_path) == {"a/b/file.txt"}


def test_a_failed_atomic_write_leaves_the_old_file_and_no_other(tmp_path):
    path = tmp_path / "file.png"
    atomic_write(path, b"old")

    def failing() -> None:
        with atomic_path(path) as temporary:
            assert temporary.suffix == ".png"
            assert temporary.parent == path.parent
            temporary.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        failing()
    assert path.read_bytes() == b"old"
    assert names_in(tmp_path) == {"file.png"}


def test_a_name_that_cannot_be_replaced_leaves_no_temporary_file(tmp_path):
    (tmp_path / "taken" / "child").mkdir(parents=True)
    with pytest.raises(OSError, match="directory"):
        atomic_write(tmp_path / "taken", b"content")
    assert names_in(tmp_path) == set()


def test_files_have_the_permissions_the_user_asked_for(tmp_path):
    before = os.umask(0o027)
    try:
        atomic_write(tmp_path / "file", b"")
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


# The folder


def test_a_fresh_folder_holds_the_config_with_or_without_resume(tmp_path):
    config = {"seed": 3, "attack": {"name": "patch-mi", "sizes": (1, 2)}, "name": "é"}
    for resume in (False, True):
        with open_run(tmp_path / f"{resume}", config=config, resume=resume) as run:
            assert not run.resumed
            expected = {**config, "attack": {"name": "patch-mi", "sizes": [1, 2]}}
            assert run.config == run.read_json("config.json") == expected


def test_an_existing_run_is_refused_without_resume_and_left_alone(tmp_path):
    with open_run(tmp_path, config={"seed": 0}, resume=False) as run:
        run.write_json("result.json", 1)
    with pytest.raises(RunExists, match=r"--resume .*another --out"):
        open_run(tmp_path, config={"seed": 1}, resume=False)
    with open_run(tmp_path, config={"seed": 0}, resume=True) as run:
        assert run.resumed
        assert run.read_json("result.json") == 1


def test_configs_are_compared_as_the_json_they_become(tmp_path):
    open_run(tmp_path, config={"sizes": (1, 2), "names": {0: "zero"}, "b": None}, resume=False).close()
    open_run(tmp_path, config={"b": None, "names": {"0": "zero"}, "sizes": [1, 2]}, resume=True).close()


def test_a_changed_config_is_refused_field_by_field(tmp_path):
    old = {"attack": {"steps": 300, "views": [1, 2], "gone": None}, "seed": 0, "same": 1.5, "flag": True}
    new = {"attack": {"steps": 500, "views": [1, 4, 8], "new": "x"}, "seed": "0", "same": 1.5, "flag": 1}
    open_run(tmp_path, config=old, resume=False).close()
    with pytest.raises(ConfigChanged) as caught:
        open_run(tmp_path, config=new, resume=True)
    assert caught.value.differences == (
        "attack.steps: 300 -> 500",
        "attack.views.1: 2 -> 4",
        "attack.views.2: (absent) -> 8",
        "attack.gone: null -> (absent)",
        'attack.new: (absent) -> "x"',
        'seed: 0 -> "0"',
        "flag: true -> 1",
    )
    assert all(difference in str(caught.value) for difference in caught.value.differences)
    assert "another --out" in str(caught.value)
    with open_run(tmp_path, config=old, resume=True) as run:
        assert run.read_json("config.json") == old


def test_changed_inputs_are_refused_and_the_first_ones_kept(tmp_path):
    old, new = {"target": {"sha256": "aa"}}, {"target": {"sha256": "bb"}}
    with open_run(tmp_path, config={}, resume=False) as run:
        run.pin_inputs(old)
    with open_run(tmp_path, config={}, resume=True) as run:
        run.pin_inputs(old)
        with pytest.raises(ConfigChanged) as caught:
            run.pin_inputs(new)
        assert caught.value.differences == ('target.sha256: "aa" -> "bb"',)
        assert run.read_json("inputs.json") == old


def test_a_config_that_is_not_json_makes_no_folder(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        open_run(tmp_path / "run", config={"rate": float("nan")}, resume=False)
    with pytest.raises(TypeError, match="JSON"):
        open_run(tmp_path / "run", config={"rate": torch.zeros(1)}, resume=False)
    assert not (tmp_path / "run").exists()


def test_a_damaged_config_is_an_error_that_names_it(tmp_path):
    open_run(tmp_path, config={"seed": 0}, resume=False).close()
    (tmp_path / "config.json").write_bytes(b'{"seed": \xff')
    with pytest.raises(RunError, match=r"config\.json is damaged"):
        open_run(tmp_path, config={"seed": 0}, resume=True)


def test_checkpoints_without_a_config_are_not_taken_over(tmp_path):
    with open_run(tmp_path, config={"seed": 0}, resume=False) as run:
        run.checkpoint("train").save(dict)
    (tmp_path / "config.json").unlink()
    for resume in (False, True):
        with pytest.raises(RunError, match="another --out"):
            open_run(tmp_path, config={"seed": 1}, resume=resume)


def test_a_path_that_cannot_be_a_folder_is_a_one_line_error(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file", tmp_path / "file" / "run", Path("/proc/run")):
        with pytest.raises(RunError, match="another --out") as caught:
            open_run(path, config={}, resume=False)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_folder_is_opened_once_until_it_is_closed(tmp_path):
    with open_run(tmp_path, config={}, resume=False):
        assert (tmp_path / "lock").read_text() == f"{os.getpid()}\n"
        with pytest.raises(RunLocked, match=rf"process {os.getpid()}:"):
            open_run(tmp_path, config={}, resume=True)
    open_run(tmp_path, config={}, resume=True).close()


def test_a_refused_opening_does_not_keep_the_lock(tmp_path):
    open_run(tmp_path, config={}, resume=False).close()
    for _ in range(2):
        with pytest.raises(RunExists):
            open_run(tmp_path, config={}, resume=False)


def test_opening_removes_what_a_killed_write_left(tmp_path):
    open_run(tmp_path, config={}, resume=False).close()
    with atomic_path(tmp_path / "judges" / "a.json") as temporary:
        temporary.write_bytes(b"half")
        leftover = temporary.rename(temporary.with_name(f"{temporary.name}.bak"))
        temporary.write_bytes(b"whole")
    assert leftover.exists()
    (tmp_path / ".hidden").write_bytes(b"the user's own")
    open_run(tmp_path, config={}, resume=True).close()
    assert names_in(tmp_path) == {"config.json", "lock", "judges/a.json", ".hidden"}


# Artefacts


@pytest.mark.parametrize("name", ["", "/etc/x", "../x", "a/../../x", "a//b", "./x", "a/", "a\\b", "a\0b"])
def test_names_that_lead_out_of_the_folder_are_refused(run, name):
    for use in (run.path, run.has, run.read_json, run.digest, lambda name: run.write_json(name, 1)):
        with pytest.raises(ValueError, match="no name for an artefact"):
            use(name)


def test_names_of_checkpoints_that_lead_out_of_the_folder_are_refused(run):
    for name in ("../x", "../../x", "/x", "a/../x"):
        with pytest.raises(ValueError, match="no name for an artefact"):
            run.checkpoint(name)


def test_json_is_indented_in_the_order_given_and_ends_with_a_newline(run):
    run.write_json("sub/result.json", {"b": [1], "a": "é"})
    assert run.path("sub/result.json").read_bytes() == '{\n  "b": [\n    1\n  ],\n  "a": "é"\n}\n'.encode()
    assert run.read_json("sub/result.json") == {"b": [1], "a": "é"}


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_json_refuses_what_json_does_not_know(run, number):
    with pytest.raises(ValueError, match="JSON"):
        run.write_json("result.json", {"value": number})
    assert not run.has("result.json")


def test_missing_and_damaged_artefacts_are_named(run):
    run.write_tensors("a.safetensors", {"x": torch.zeros(9)}, {})
    whole = run.path("a.safetensors").read_bytes()
    for damaged in (b"", whole[:5], whole[:40], whole[:-1], whole + b"x"):
        atomic_write(run.path("a.safetensors"), damaged)
        with pytest.raises(RunError, match=r"a\.safetensors is damaged"):
            run.read_tensors("a.safetensors")
    atomic_write(run.path("b.json"), b"{")
    with pytest.raises(RunError, match=r"b\.json is damaged"):
        run.read_json("b.json")
    for use in (run.read_json, run.read_tensors, run.digest):
        with pytest.raises(RunError, match=r"cannot read .*c\.json: No such file"):
            use("c.json")


def test_tensors_of_every_kind_come_back_and_other_programs_read_them(run):
    base = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
    tensors = {
        "view": base[:, 1:],
        "shared": base,
        "transposed": base.transpose(0, 2),
        "expanded": torch.ones(1, 3).expand(5, 3),
        "half": torch.tensor([1.5, float("nan")], dtype=torch.bfloat16),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3, dtype=torch.uint8),
        "parameter": torch.nn.Parameter(torch.ones(2)),
        "conjugate": torch.tensor([1 + 2j]).conj(),
    }
    run.write_tensors("judges/a.safetensors", tensors, {"é": "ü"})
    back, metadata = run.read_tensors("judges/a.safetensors")
    assert metadata == {"é": "ü"}
    assert back.keys() == tensors.keys()
    for name, tensor in tensors.items():
        torch.testing.assert_close(back[name], tensor.detach().resolve_conj(), rtol=0, atol=0, equal_nan=True)
        assert not back[name].requires_grad
    with safetensors.safe_open(str(run.path("judges/a.safetensors")), framework="pt") as file:
        assert file.metadata() == metadata
        assert file.get_tensor("view").equal(base[:, 1:])


def test_equal_tensors_and_metadata_give_equal_bytes(run):
    tensors = {"b": torch.zeros(3), "a": torch.ones(2, dtype=torch.int64)}
    metadata = {name: name for name in ("zeta", "alpha", "mu", "beta", "pi", "rho")}
    digests = set()
    for order in (1, -1) * 5:
        ordered = [dict(list(content.items())[::order]) for content in (tensors, metadata)]
        run.write_tensors("a.safetensors", *ordered)
        digests.add(run.digest("a.safetensors"))
    assert digests == {hashlib.sha256(run.path("a.safetensors").read_bytes()).hexdigest()}


def test_loaded_tensors_are_aligned_as_fresh_ones_are(run):
    run.write_tensors("a.safetensors", {"byte": torch.zeros(1, dtype=torch.uint8), "x": torch.zeros(100)}, {})
    assert all(tensor.data_ptr() % 64 == 0 for tensor in run.read_tensors("a.safetensors")[0].values())


# Checkpoints

DTYPES = [
    torch.float32,
    torch.float64,
    torch.bfloat16,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.uint8,
    torch.bool,
]


@st.composite
def tensor_values(draw) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=4))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 9)))
    whole = (torch.randn(shape, generator=generator) * 3).to(draw(st.sampled_from(DTYPES)))
    order = draw(st.permutations(range(len(shape))))
    return whole.permute(order)


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | tensor_values()
keys = st.integers() | st.text(max_size=5) | st.booleans() | st.none()
trees = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(keys, inner, max_size=3)
        | st.fixed_dictionaries({"tensor": inner, "sha256": st.just("0" * 64)})
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(state=st.dictionaries(keys, trees, max_size=4))
def test_every_nested_state_comes_back_identical(tmp_path_factory, state):
    checkpoint = checkpoint_in(tmp_path_factory.mktemp("state"))
    checkpoint.save(lambda: state)
    assert identical(checkpoint.load(), state)


def test_memory_layouts_survive_and_views_come_back_whole(tmp_path):
    images = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    state = {
        "image": images,
        "view": images[:, 1],
        "expanded": torch.ones(1).expand(4),
        "twice": [images, images],
    }
    checkpoint = checkpoint_in(tmp_path)
    checkpoint.save(lambda: state)
    back = checkpoint.load()
    assert back is not None
    assert identical(back["image"], images)
    assert back["view"].equal(images[:, 1])
    assert back["expanded"].equal(torch.ones(4))
    back["twice"][0].zero_()
    assert back["twice"][1].equal(images)


def test_states_that_cannot_be_stored_say_where(tmp_path):
    checkpoint = checkpoint_in(tmp_path)
    with pytest.raises(TypeError, match=r"state\['optimiser'\]\[0\]\[3\] is a device"):
        checkpoint.save(lambda: {"optimiser": [{3: torch.device("cpu")}]})
    with pytest.raises(TypeError, match=r"a key of state is a tuple"):
        checkpoint.save(lambda: {(1, 2): 0})
    assert names_in(tmp_path) == set()


def test_an_optimiser_goes_on_as_if_nothing_had_happened(tmp_path):
    def step(weight, optimiser):
        optimiser.zero_grad()
        (weight * torch.randn(4)).sum().square().backward()
        optimiser.step()

    with seeded(0):
        weight = torch.nn.Parameter(torch.ones(4))
        optimiser = torch.optim.Adam([weight], amsgrad=True)
        step(weight, optimiser)
        checkpoint = checkpoint_in(tmp_path)
        checkpoint.save(lambda: {"w": weight, "adam": optimiser.state_dict(), "random": random_state()})
        step(weight, optimiser)
    state = checkpoint_in(tmp_path).load()
    assert state is not None
    with seeded(1):
        again = torch.nn.Parameter(state["w"])
        other = torch.optim.Adam([again], amsgrad=True)
        other.load_state_dict(state["adam"])
        restore_random_state(state["random"])
        step(again, other)
    assert again.equal(weight)


def test_the_newest_of_two_generations_is_loaded(tmp_path):
    assert checkpoint_in(tmp_path).load() is None
    for step in range(1, 6):
        checkpoint_in(tmp_path).save(lambda step=step: {"step": step})
        assert checkpoint_in(tmp_path).load() == {"step": step}
    assert names_in(tmp_path) == {"train.0.safetensors", "train.1.safetensors"}


def test_a_run_folder_keeps_its_checkpoints_by_name(run):
    run.checkpoint("judges/a").save(lambda: {"step": 1})
    run.checkpoint("attack").save(lambda: {"step": 2})
    assert run.checkpoint("judges/a").load() == {"step": 1}
    assert run.checkpoint("attack").load() == {"step": 2}
    run.checkpoint("attack").clear()
    assert run.checkpoint("attack").load() is None
    (file,) = run.path("checkpoint").rglob("*.safetensors")
    assert file.name in ("a.0.safetensors", "a.1.safetensors")
    with safetensors.safe_open(str(file), framework="pt") as opened:
        assert opened.metadata()["serial"] == "1"


def newest_and_contents(folder: Path) -> tuple[Path, bytes]:
    for step in (1, 2):
        checkpoint_in(folder).save(
            lambda step=step: {"step": step, "weights": torch.arange(50.0), "adam": {0: "x"}}
        )
    (newest,) = (f for f in folder.iterdir() if b'"serial":"2"' in f.read_bytes())
    return newest, newest.read_bytes()


def damages(whole: bytes):
    for sixteenth in range(16):
        yield whole[: len(whole) * sixteenth // 16]
    yield whole[:-1]
    yield whole + b"\0"
    yield bytes(len(whole))
    yield b"x" * len(whole)
    chosen = random.Random(0)
    header_bits = 8 * (8 + int.from_bytes(whole[:8], "little"))
    for bit in [*chosen.sample(range(8 * len(whole)), 60), *chosen.sample(range(header_bits), 60), 0, 63]:
        flipped = bytearray(whole)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)


def test_a_damaged_checkpoint_is_never_loaded_and_the_one_before_is(tmp_path, caplog):
    newest, whole = newest_and_contents(tmp_path)
    for damaged in damages(whole):
        newest.write_bytes(damaged)
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="patchmi"):
            state = checkpoint_in(tmp_path).load()
        assert state is not None
        assert state["step"] == 1
        assert [str(newest) in record.getMessage() for record in caplog.records] == [True]


def test_saving_after_damage_overwrites_the_damaged_file(tmp_path):
    newest, whole = newest_and_contents(tmp_path)
    newest.write_bytes(whole[:100])
    checkpoint_in(tmp_path).save(lambda: {"step": 3})
    assert checkpoint_in(tmp_path).load() == {"step": 3}
    newest.write_bytes(b"")
    state = checkpoint_in(tmp_path).load()
    assert state is not None
    assert state["step"] == 1


def test_two_damaged_checkpoints_mean_the_beginning_and_a_message_for_each(tmp_path, caplog):
    newest_and_contents(tmp_path)
    for file in tmp_path.iterdir():
        file.write_bytes(b"")
    with caplog.at_level(logging.WARNING, logger="patchmi"):
        assert checkpoint_in(tmp_path).load() is None
    assert len(caplog.records) == 2
    checkpoint_in(tmp_path).save(lambda: {"step": 1})
    assert checkpoint_in(tmp_path).load() == {"step": 1}


def test_a_state_is_built_only_when_it_is_due(tmp_path):
    built = []

    def factory():
        built.append(1)
        return {"step": len(built)}

    rare, always = checkpoint_in(tmp_path / "rare", NEVER), checkpoint_in(tmp_path / "always", 0.0)
    for _ in range(3):
        rare.save_if_due(factory)
    assert not built
    for _ in range(3):
        always.save_if_due(factory)
    assert len(built) == 3


def test_without_a_run_folder_checkpoints_do_nothing():
    def factory():
        raise AssertionError("a state was built")

    before = signal.getsignal(signal.SIGINT)
    with NO_CHECKPOINT.guard():
        assert signal.getsignal(signal.SIGINT) is before
        NO_CHECKPOINT.save(factory)
        NO_CHECKPOINT.save_if_due(factory)
    NO_CHECKPOINT.clear()
    assert NO_CHECKPOINT.load() is None


# Interrupts


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_waits_for_the_end_of_the_step_and_saves(tmp_path, number):
    checkpoint = checkpoint_in(tmp_path, NEVER)
    handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
    halves = []

    def train() -> None:
        with checkpoint.guard():
            for step in range(5):
                halves.append((step, "first"))
                if step == 2:
                    signal.raise_signal(number)
                halves.append((step, "second"))
                checkpoint.save_if_due(lambda step=step: {"step": step + 1})

    with pytest.raises(KeyboardInterrupt):
        train()
    assert halves[-1] == (2, "second")
    assert checkpoint_in(tmp_path).load() == {"step": 3}
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)] == handlers
    checkpoint.save_if_due(lambda: {"step": 4})


def test_a_second_interrupt_acts_at_once(tmp_path):
    reached = []

    def train() -> None:
        with checkpoint_in(tmp_path).guard():
            signal.raise_signal(signal.SIGINT)
            reached.append(1)
            signal.raise_signal(signal.SIGINT)
            reached.append(2)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert reached == [1]


def test_an_interrupt_after_the_last_step_is_not_swallowed(tmp_path):
    with pytest.raises(KeyboardInterrupt), checkpoint_in(tmp_path).guard():
        signal.raise_signal(signal.SIGTERM)


def test_an_error_in_the_loop_is_not_hidden_by_an_interrupt(tmp_path):
    before = signal.getsignal(signal.SIGINT)

    def train() -> None:
        with checkpoint_in(tmp_path).guard():
            signal.raise_signal(signal.SIGINT)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    assert signal.getsignal(signal.SIGINT) is before


def test_ignored_signals_stay_ignored(tmp_path):
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with checkpoint_in(tmp_path).guard():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_train_without_handlers(tmp_path):
    seen = []

    def train():
        with terminate_as_interrupt(), checkpoint_in(tmp_path).guard():
            seen.append(signal.getsignal(signal.SIGINT))

    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert seen == [before]


def test_termination_interrupts(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), terminate_as_interrupt():
        signal.raise_signal(signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before


# Random state


def test_seeded_draws_repeat_and_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(2, 3)
    torch.manual_seed(1)
    first = torch.rand(3)
    with seeded(5):
        inside = torch.rand(3)
    second = torch.rand(3)
    with seeded(5):
        assert torch.rand(3).equal(inside)
    assert first.equal(expected[0])
    assert second.equal(expected[1])
    with seeded(6):
        assert not torch.rand(3).equal(inside)


def test_seeded_restores_after_an_error():
    before = torch.get_rng_state()

    def draw() -> None:
        with seeded(2**63 - 1):
            torch.rand(1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        draw()
    assert torch.get_rng_state().equal(before)


def test_a_restored_random_state_replays_the_same_draws(run: RunFolder):
    with seeded(0):
        torch.randn(3)
        checkpoint = run.checkpoint("draws")
        checkpoint.save(random_state)
        expected = [torch.randn(5), torch.randperm(9)]
        state = checkpoint.load()
        assert state is not None
        restore_random_state(state)
        drawn = [torch.randn(5), torch.randperm(9)]
    assert identical(drawn, expected)


def test_checkpoints_hold_no_pickle(run):
    run.checkpoint("a").save(lambda: {"x": torch.ones(2), "y": (1, 2)})
    (file,) = run.path("checkpoint").iterdir()
    header_size = int.from_bytes(file.read_bytes()[:8], "little")
    header = json.loads(file.read_bytes()[8 : 8 + header_size])
    assert json.loads(header["__metadata__"]["tree"]) == {
        "dict": [["x", {"tensor": "0", "strides": [1]}], ["y", {"tuple": [1, 2]}]]
    }
