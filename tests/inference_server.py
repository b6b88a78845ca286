"""An inference server behind a real socket, as a deployed model has one."""

import json
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

Faults = list[tuple[int, dict[str, str], bytes]]


def output(datatype: str, values: np.ndarray) -> list[dict]:
    """The one output of a model, as the protocol has it."""
    return [{"name": "out", "datatype": datatype, "shape": list(values.shape), "data": values.tolist()}]


class Server(ThreadingHTTPServer):
    """An inference server of the Open Inference Protocol, which keeps its own account.

    `faults` are answered first, in order; `shown` makes the outputs of the scores; `datatype` is what it
    takes, FP32 with mean and deviation taken off.

    Args:
        classify: Scores for images of 8 bits a pixel.
    """

    daemon_threads = True

    def __init__(self, classify: Callable[[np.ndarray], np.ndarray]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/v2/models/any/infer"
        self.classify = classify
        self.datatype = "UINT8"
        self.mean, self.std = 0.0, 1.0
        self.faults: Faults = []
        self.shown: Callable[[np.ndarray], list[dict]] = lambda scores: output("FP32", scores)
        self.asked: Counter[bytes] = Counter()
        self.batches: list[int] = []
        self.times: list[float] = []
        self.headers: list[dict[str, str]] = []
        self.seconds = 0.0


class Handler(BaseHTTPRequestHandler):
    server: Server  # pyright: ignore[reportIncompatibleVariableOverride]

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.times.append(time.monotonic())
        self.server.headers.append(dict(self.headers))
        if self.server.faults:
            self.respond(*self.server.faults.pop(0))
            return
        time.sleep(self.server.seconds)
        (given,) = body["inputs"]
        assert (given["name"], given["datatype"]) == ("images", self.server.datatype)
        images = np.array(given["data"])
        if self.server.datatype == "FP32":
            images = np.rint((images * self.server.std + self.server.mean) * 255)
        images = images.astype(np.uint8).reshape(given["shape"])
        self.server.batches.append(len(images))
        self.server.asked.update(image.tobytes() for image in images)
        try:
            outputs = self.server.shown(self.server.classify(images))
        except (RuntimeError, ValueError) as error:
            self.respond(400, {}, str(error).encode())
            return
        self.respond(200, {}, json.dumps({"model_name": "any", "outputs": outputs}).encode())

    def respond(self, status: int, headers: dict[str, str], data: bytes) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        del format, args


@contextmanager
def serving(classify: Callable[[np.ndarray], np.ndarray]) -> Iterator[Server]:
    """A server that answers until the block ends."""
    with Server(classify) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield running
        running.shutdown()
        thread.join()
