"""What is refused whatever else was asked; it stands at the bottom because every reader of files needs it."""


class UnsafeInput(ValueError):  # noqa: N818 - what it says, not that it is an error
    """A file that could execute code when it is opened: one line that says what it is and what to do instead.

    The command line ends with exit code 4.
    """
