"""What can go wrong with a run folder; every message names the folder or file and the remedy."""


class RunError(Exception):
    """A run folder cannot be used as asked."""


class RunLocked(RunError):  # noqa: N818
    """Another process is working in the folder."""


class RunExists(RunError):  # noqa: N818
    """The folder already holds a run, and `--resume` was not given."""


class ConfigChanged(RunError):  # noqa: N818
    """The folder's run was started with another configuration.

    Attributes:
        differences: One sentence for each field that differs: `dotted.path: old -> new`.
    """

    def __init__(self, folder: str, differences: tuple[str, ...]) -> None:
        self.differences = differences
        shown = "".join(f"\n  {difference}" for difference in differences)
        super().__init__(
            f"{folder} was started with another configuration; resume with that one, or choose another --out:"
            + shown
        )


class OutOfResources(RunError):  # noqa: N818
    """The disk, a quota or a file-size limit is exhausted; what stood under its final name is untouched."""
