"""No way out for any test of images that names no hub."""

import socket
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No way out, and no attempt at one."""
    attempts: list[Any] = []

    def refuse(*where: Any, **_: Any) -> NoReturn:
        attempts.append(where)
        raise OSError("the network is not to be touched")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket.socket, "connect_ex", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    yield
    assert attempts == []
