"""The app's package on the path, as its server puts it there; a server and a PACS as processes, on free ports."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.append(str(Path(__file__).resolve().parents[2] / "slicer_extension" / "SuperResolution"))  # its client

from processes import Server, has_orthanc, start_orthanc

from tests.conftest import dciodvfy, dsrdump  # noqa: F401

READERS = {"ada": "reader", "bob": "reader", "eve": "adjudicator", "root": "admin"}


@pytest.fixture(scope="session")
def serve() -> Iterator[Callable[..., Server]]:
    """Starts servers, and ends them after the tests."""
    servers: list[Server] = []

    def start(*arguments: Any, **options: Any) -> Server:
        servers.append(Server(*arguments, **options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="module")
def server(serve: Callable[..., Server], studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Server:
    """A server of the `studies` of a module, with a token for each of `READERS`."""
    return serve(studies, tmp_path_factory.mktemp("server") / "store", readers=READERS)


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of DICOMweb of an empty PACS on this machine."""
    if not has_orthanc():
        pytest.skip("PACS: Orthanc (Debian packages orthanc and orthanc-dicomweb) is not installed")
    process, address = start_orthanc(tmp_path_factory.mktemp("orthanc"))
    yield address
    process.terminate()
    process.wait(30)
