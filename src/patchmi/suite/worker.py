"""One cell in a process of its own: `python -m patchmi.suite.worker DIR JOB`, as the scheduler starts it.

Standard input is a pipe from the parent: where it ends, the worker saves its state and ends too.
"""

import logging
import os
import signal
import socket
import sys
import threading
from pathlib import Path

from patchmi.runs import terminate_as_interrupt
from patchmi.suite.cells import run_job
from patchmi.suite.file import load_suite
from patchmi.suite.jobs import reason_of, record_failure

INTERRUPTED, FAILED = 130, 1


def main(arguments: list[str]) -> int:
    """Do the cell; the exit code. What went wrong stands in `failures/JOB.json` and, in full, in the log."""
    folder, name = Path(arguments[0]), arguments[1]
    logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(asctime)s %(message)s")
    logging.captureWarnings(True)
    log = logging.getLogger("patchmi")
    log.info("%s begins on %s, process %d", name, socket.gethostname(), os.getpid())
    try:
        with terminate_as_interrupt():
            threading.Thread(target=_end_with_parent, daemon=True).start()
            run_job(folder, load_suite(folder), name)
    except KeyboardInterrupt:
        log.info("%s was interrupted and can go on", name)
        return INTERRUPTED
    except Exception as error:  # whatever it is, it is this cell's alone
        log.exception("%s failed", name)
        record_failure(folder, name, reason_of(error))
        return FAILED
    log.info("%s is done", name)
    return 0


def _end_with_parent() -> None:
    # Not through sys.stdin, whose lock a thread that still waits would hold when Python ends.
    while os.read(0, 1):
        pass
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
