"""A hub's data set, fetched with the hub's own client from a small server on this machine."""

import hashlib
import io
import json
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import huggingface_hub.constants
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from patchmi.data import SourceInvalid, load_labelled, load_public, splits_of

REVISION = "0123456789abcdef0123456789abcdef01234567"
GREY = (1, 8, 8)
Serve = Callable[[dict[str, bytes]], list[str]]


def png(level: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (8, 8), level).save(file, "PNG")
    return file.getvalue()


def table(levels: list[int]) -> bytes:
    file = io.BytesIO()
    rows = [{"bytes": png(level), "path": None} for level in levels]
    pq.write_table(pa.table({"image": rows, "label": [level % 2 for level in levels]}), file)
    return file.getvalue()


def levels(images: torch.Tensor) -> list[int]:
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


def hub_of(files: dict[str, bytes], asked: list[str]) -> type[BaseHTTPRequestHandler]:
    """A server of `files` as the data set `some/thing`, which collects the paths that are `asked` for."""

    class Hub(BaseHTTPRequestHandler):
        """What a download asks for: the revision, the list of files, and each file."""

        def do_HEAD(self) -> None:
            self.do_GET()

        def do_GET(self) -> None:
            asked.append(self.path)
            path = self.path.partition("?")[0]
            if path.startswith("/api/datasets/some/thing/tree/"):
                listed = [
                    {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha256(data).hexdigest()}
                    for name, data in files.items()
                ]
                self.send(json.dumps(listed).encode())
            elif path.startswith("/api/datasets/some/thing/"):
                listed = [{"rfilename": name} for name in files]
                self.send(json.dumps({"id": "some/thing", "sha": REVISION, "siblings": listed}).encode())
            elif (name := path.partition(f"/resolve/{REVISION}/")[2]) in files:
                self.send(files[name])
            else:
                self.send_response(404)
                self.send_header("X-Error-Code", "RepoNotFound")
                self.send_header("Content-Length", "0")
                self.end_headers()

        def send(self, data: bytes) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    return Hub


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Serve]:
    """Serve files as the data set `some/thing`, and collect the paths that are asked for."""
    files: dict[str, bytes] = {}
    asked: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), hub_of(files, asked))
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    look_up = socket.getaddrinfo

    def look_up_here(host: str | bytes | None, *rest: Any, **options: Any) -> Any:
        assert host == "127.0.0.1", f"{host} is not to be asked"
        return look_up(host, *rest, **options)

    def publish(published: dict[str, bytes]) -> list[str]:
        files.update(published)
        return asked

    monkeypatch.setattr(socket, "getaddrinfo", look_up_here)
    yield publish
    server.shutdown()
    thread.join()
    server.server_close()


def test_tables_are_fetched_once_and_read_like_a_folder_of_one_s_own(serve):
    asked = serve(
        {
            "data/train-00000-of-00001.parquet": table([1, 2, 3]),
            "data/test-00000-of-00001.parquet": table([9]),
            "README.md": b"# A data set",
            "loader.py": b"raise SystemExit",
            "model.pkl": b"pickle",
        }
    )
    assert splits_of("hub:some/thing") == ("train", "test")
    found = load_labelled("hub:some/thing", image_shape=GREY)
    assert (levels(found.images), found.labels.tolist()) == ([1, 2, 3], [1, 0, 1])
    assert f"fetched hub:some/thing, revision {REVISION}" in found.notes
    assert levels(load_labelled("hub:some/thing", image_shape=GREY, split="test").images) == [9]
    public = load_public("hub:some/thing", image_shape=GREY, count=2)
    assert public.description == "2 images of some/thing"
    assert not [path for path in asked if path.endswith((".py", ".pkl", ".md"))]
    assert len([path for path in asked if "train-00000" in path]) <= 2  # size, then content; never again


def test_class_folders_are_read_through_the_links_of_the_hub_s_cache(serve):
    serve({"cat/1.png": png(1), "cat/2.PNG": png(2), "dog/1.png": png(3)})
    found = load_labelled("hub:some/thing", image_shape=GREY)
    assert (found.class_names, levels(found.images)) == (("cat", "dog"), [1, 2, 3])


def test_a_folder_and_a_revision_can_be_named(serve):
    asked = serve({"small/train.parquet": table([5]), "large/train.parquet": table([6, 7])})
    with pytest.raises(SourceInvalid, match=r"several data sets \(large, small\)"):
        load_public("hub:some/thing", image_shape=GREY, count=9)
    asked.clear()
    found = load_public("hub:some/thing/large@v1.0", image_shape=GREY, count=9)
    assert levels(found.images) == [6, 7]
    assert any("/revision/v1.0" in path for path in asked)
    assert not any("small" in path for path in asked)


def test_a_data_set_that_is_not_there_is_refused_in_one_line(serve):
    serve({})
    for name in ("hub:no/such", "hub:some/thing/folder"):
        with pytest.raises(SourceInvalid) as refused:
            load_public(name, image_shape=GREY, count=9)
        assert "\n" not in str(refused.value)
        assert str(refused.value).startswith(f"{name}: ")


def test_without_a_network_it_is_refused_in_one_line(serve, monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(SourceInvalid, match=r"cannot be fetched .*; check the name, network and access"):
        load_public("hub:some/thing", image_shape=GREY, count=9)


def test_without_the_client_the_package_to_install_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(SourceInvalid, match=r"pip install 'patchmi\[hub\]'"):
        load_public("hub:some/thing", image_shape=GREY, count=9)


@pytest.mark.parametrize(
    "name", ["hub:", "hub:mnist", "hub:a/b/../../c", "hub:a/b/*", "hub:a/b@", "hub:../b/c d"]
)
def test_what_is_no_name_is_refused_without_asking_anybody(name, offline):
    with pytest.raises(SourceInvalid, match=r"write hub:OWNER/NAME\[/FOLDER\]\[@REVISION\]"):
        load_public(name, image_shape=GREY, count=9)
