"""What a suite says while it runs, on stderr: a line for each cell that ends, and how many are left."""

from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_ONE_DAY_SECONDS = 86_400.0


class Display:
    """Lines and a bar; the bar only where stderr is a terminal.

    Args:
        job_count: Cells of the suite.
        done_count: Those that were done before.
    """

    def __init__(self, *, job_count: int, done_count: int = 0) -> None:
        console = Console(stderr=True, soft_wrap=True, highlight=False)
        self._bar = Progress(
            TextColumn("cells"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
            speed_estimate_period=_ONE_DAY_SECONDS,
        )
        self._task = self._bar.add_task("cells", total=job_count, completed=done_count)

    def __enter__(self) -> "Display":
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()

    def ended(self, name: str, seconds: float) -> None:
        """A cell is done."""
        self._bar.advance(self._task)
        self.say(f"{name}: done in {seconds:,.0f} s")

    def failed(self, name: str, reason: str) -> None:
        """A cell is not done."""
        self._bar.advance(self._task)
        self.say(f"{name}: failed: {reason}")

    def skipped(self, name: str, needed: str) -> None:
        """A cell is not begun, because one that it needs failed."""
        self._bar.advance(self._task)
        self.say(f"{name}: not begun, because {needed} failed")

    def say(self, message: str) -> None:
        """One line."""
        self._bar.console.print(f"patchmi: {message}", markup=False)
