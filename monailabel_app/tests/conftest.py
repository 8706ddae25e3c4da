"""The app's package on the path, as its server puts it there; a server and a PACS as processes, on free ports."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

APP = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(APP), str(APP.parent)]

START_SECONDS = 240
"""How long a server may take to start on a busy machine. What it takes on a quiet one is measured, not tested."""


def free_port() -> int:
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return int(connection.getsockname()[1])


class Server:
    """A server of the app as a process."""

    def __init__(self, studies: str | Path, store: Path, bundles: str = "chest_xray_edsr_x4") -> None:
        self.studies, self.store, self.bundles = studies, store, bundles
        self.process: subprocess.Popen[bytes] | None = None
        self.headers: dict[str, str] = {}

    def start(self) -> Server:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.store.parent / f"server-{self.port}.log"
        command = [
            sys.executable, "-m", "monai_sr_bundle", "label", "--studies", str(self.studies), "--store",
            str(self.store), "--bundles", self.bundles, "--port", str(self.port),
        ]  # fmt: skip
        with self.log.open("wb") as log:
            environment = {**os.environ, "HOME": str(self.store.parent), "PYTHONPATH": str(APP.parent)}
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.store.parent, env=environment, start_new_session=True
            )
        wait_for(self.is_ready, START_SECONDS, self.log)
        return self

    def is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log.read_text()
        try:
            return requests.get(self.url, timeout=5).status_code in (200, 401)
        except requests.ConnectionError:
            return False

    def call(self, method: str, path: str, token: str = "", **options: Any) -> requests.Response:
        headers = {
            **self.headers,
            **({"Authorization": f"Bearer {token}"} if token else {}),
            **options.pop("headers", {}),
        }
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=600, **options)

    def get(self, path: str, **options: Any) -> Any:
        answer = self.call("GET", path, **options)
        assert answer.status_code == 200, (answer.status_code, answer.text)
        return answer.json()

    def kill(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


def wait_for(condition: Callable[[], Any], seconds: float, log: Path | None = None) -> Any:
    end = time.monotonic() + seconds
    while not (result := condition()):
        assert time.monotonic() < end, f"not within {seconds} s\n{log.read_text() if log else ''}"
        time.sleep(0.2)
    return result


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


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of DICOMweb of an empty PACS on this machine."""
    program = shutil.which("Orthanc")
    plugin = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if program is None or not plugin.exists():
        pytest.skip("PACS: Orthanc (Debian packages orthanc and orthanc-dicomweb) is not installed")
    folder, port = tmp_path_factory.mktemp("orthanc"), free_port()
    settings = {
        "Name": "tests", "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"),
        "HttpPort": port, "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "Plugins": [str(plugin)], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log.txt").open("wb") as log:
        process = subprocess.Popen([program, str(folder / "orthanc.json")], stdout=log, stderr=log)

    def answers() -> bool:
        assert process.poll() is None, (folder / "log.txt").read_text()
        try:
            return requests.get(f"http://127.0.0.1:{port}/system", timeout=5).ok
        except requests.ConnectionError:
            return False

    wait_for(answers, 60, folder / "log.txt")
    yield f"http://127.0.0.1:{port}/dicom-web"
    process.terminate()
    process.wait(30)


@pytest.fixture(scope="session")
def dciodvfy() -> Callable[[Path], list[str]]:
    """The errors that the DICOM validator of dicom3tools finds in a file, one line each."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("DICOM conformance: dciodvfy (Debian package dicom3tools) is not installed")

    def errors(path: Path) -> list[str]:
        result = subprocess.run([program, str(path)], capture_output=True, text=True, errors="replace", check=False)
        lines = (result.stdout + result.stderr).splitlines()
        return [line for line in lines if line.startswith("Error")] or ([] if result.returncode == 0 else lines)

    return errors
