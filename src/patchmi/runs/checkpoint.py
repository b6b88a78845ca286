"""Checkpoints of a training loop: saved on time and on Ctrl-C, two generations, verified when read."""

import logging
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from patchmi.runs.files import atomic_write
from patchmi.runs.state import pack_state, unpack_state

_log = logging.getLogger("patchmi")

State = dict[Any, Any]
"""Nested dicts, lists and tuples of tensors, numbers, strings, booleans and None."""


class Checkpoint:
    """What a training loop holds to be killed at any moment and go on from the same bytes.

    The loop restores what `load` gives, and calls `save_if_due` once at the end of each step:

        state = checkpoint.load() or fresh_state()
        with checkpoint.guard():
            for step in range(state["step"], step_count):
                ...
                checkpoint.save_if_due(lambda: {"step": step + 1, "random": random_state(), ...})

    The state must hold all that the next step depends on: parameters, buffers, optimisers, random state.
    Two files take turns, so that a whole one exists while the other is being written.
    """

    def __init__(self, files: tuple[Path, Path] | None, *, every_seconds: float) -> None:
        """Hold no file yet.

        Args:
            files: The two generations, or None for a checkpoint that keeps nothing.
            every_seconds: How long `save_if_due` waits between saves; 0 saves at every step.
        """
        self._files = files
        self._every_seconds = every_seconds
        self._saved_at = time.monotonic()
        self._interrupted = False
        self._serial: int | None = None

    def load(self) -> State | None:
        """The newest whole state, or None to start from the beginning.

        Damaged files are passed over with a message to the logger `patchmi`. Tensors are on the CPU, with the
        strides they had.
        """
        self._serial, state = 0, None
        for file in self._files or ():
            try:
                serial, found = unpack_state(file.read_bytes())
            except FileNotFoundError:
                continue
            except (OSError, ValueError) as error:
                _log.warning("%s is damaged (%s): going on from an older state or afresh", file, error)
                continue
            if serial > self._serial:
                self._serial, state = serial, found
        return state

    def save(self, state_factory: Callable[[], State]) -> None:
        """Replace the older of the two files by the present state.

        Args:
            state_factory: Gives the state; called at once.

        Raises:
            OutOfResources: The disk or a quota is full. The files stay as they were.
            TypeError: The state holds something else than `State` says.
        """
        if self._files is None:
            return
        if self._serial is None:
            self.load()
        serial = (self._serial or 0) + 1
        # By turns: the newest whole file is never the one that is written.
        atomic_write(self._files[serial % 2], pack_state(state_factory(), serial=serial))
        self._serial = serial
        self._saved_at = time.monotonic()

    def save_if_due(self, state_factory: Callable[[], State]) -> None:
        """Mark the end of a step: save if it is time, and stop here if Ctrl-C was pressed during the step.

        Args:
            state_factory: Gives the state that the next step starts from; called only if it is needed.

        Raises:
            KeyboardInterrupt: Inside `guard`, after an interrupt; the state has been saved.
            OutOfResources: The disk or a quota is full. The files stay as they were.
        """
        interrupted = self._interrupted
        if interrupted or time.monotonic() - self._saved_at >= self._every_seconds:
            self.save(state_factory)
        if interrupted:
            raise KeyboardInterrupt

    @contextmanager
    def guard(self) -> Iterator[None]:
        """Hold Ctrl-C and SIGTERM back until the step ends, where `save_if_due` saves and then raises.

        A state saved in the middle of a step would not resume to the same bytes. A second interrupt acts at
        once. Outside the main thread, and for a checkpoint that keeps nothing, interrupts act as usual.

        Raises:
            KeyboardInterrupt: An interrupt came after the last `save_if_due`.
        """
        if self._files is None:
            yield
            return

        def note(_number: int, _frame: FrameType | None) -> None:
            if self._interrupted:
                raise KeyboardInterrupt
            self._interrupted = True

        try:
            with _handled(note, signal.SIGINT, signal.SIGTERM):
                yield
            if self._interrupted:
                raise KeyboardInterrupt
        finally:
            self._interrupted = False

    def clear(self) -> None:
        """Remove the files: what the loop made stands elsewhere now."""
        for file in self._files or ():
            file.unlink(missing_ok=True)
        self._serial = 0


NO_CHECKPOINT = Checkpoint(None, every_seconds=math.inf)
"""For a loop without a run folder: nothing to load, saves do nothing, interrupts act as usual."""


@contextmanager
def terminate_as_interrupt() -> Iterator[None]:
    """Let SIGTERM (a scheduler, `kill`, `timeout`) raise KeyboardInterrupt, as Ctrl-C does, inside the block.

    Does nothing outside the main thread.
    """
    with _handled(signal.default_int_handler, signal.SIGTERM):
        yield


@contextmanager
def _handled(handler: Callable[[int, FrameType | None], None], *numbers: signal.Signals) -> Iterator[None]:
    """Handle signals inside the block; only the main thread can, and ignored signals stay ignored."""
    previous: dict[signal.Signals, Any] = {}
    try:
        if threading.current_thread() is threading.main_thread():
            for number in numbers:
                # None: a handler set by C code, which Python could not put back.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    previous[number] = signal.signal(number, handler)
        yield
    finally:
        for number, old in previous.items():
            signal.signal(number, old)
