"""Processes on free ports of this machine, for the example session and the tests."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import requests
from labelling.access import add_token
from labelling.box_store import BoxStore
from labelling.context import STORE_FILE

START_SECONDS = 240
"""Longest start of a process on a busy machine."""
ORTHANC_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
ROOT = Path(__file__).resolve().parents[1]


def free_port() -> int:
    """Return a port that nobody listens at."""
    with socket.socket() as connection:
        connection.bind(("127.0.0.1", 0))
        return int(connection.getsockname()[1])


def wait_for(condition: Callable[[], Any], seconds: float, log: Path | None = None) -> Any:
    """Return the first result of a function that is true.

    Raises:
        TimeoutError: there was none within so many seconds; the message ends with the log.
    """
    end = time.monotonic() + seconds
    while not (result := condition()):
        if time.monotonic() > end:
            raise TimeoutError(f"not within {seconds} s\n{log.read_text()[-4000:] if log else ''}")
        time.sleep(0.2)
    return result


def has_orthanc() -> bool:
    """Return whether the PACS is installed."""
    return shutil.which("Orthanc") is not None and ORTHANC_PLUGIN.exists()


def start_orthanc(folder: Path) -> tuple[subprocess.Popen[bytes], str]:
    """Start an empty PACS that answers this machine alone.

    Returns:
        The process, and the address of its DICOMweb.

    Raises:
        FileNotFoundError: it is not installed.
    """
    if not has_orthanc():
        raise FileNotFoundError("Orthanc is not installed (Debian: apt install orthanc orthanc-dicomweb).")
    folder.mkdir(parents=True, exist_ok=True)
    port = free_port()
    settings = {
        "Name": "example",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [str(ORTHANC_PLUGIN)],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(settings), encoding="utf-8")
    log = folder / "log.txt"
    with log.open("wb") as stream:
        process = subprocess.Popen(["Orthanc", str(folder / "orthanc.json")], stdout=stream, stderr=stream)
    address = f"http://127.0.0.1:{port}"
    wait_for(lambda: _answers(process, f"{address}/system", log), START_SECONDS, log)
    return process, f"{address}/dicom-web"


class Server:
    """`monai-sr label` as a process.

    Args:
        studies: folder of images, or address of a PACS.
        store: folder of the boxes.
        bundles: comma-separated names or folders. Default: every shipped bundle.
        readers: role by reader, who get a token each, in `tokens`. Default: a server without tokens.
    """

    def __init__(
        self, studies: str | Path, store: Path, bundles: str = "", readers: Mapping[str, str] | None = None
    ) -> None:
        self.studies, self.store, self.bundles = studies, store, bundles
        boxes = BoxStore(store / STORE_FILE)
        self.tokens = {reader: add_token(boxes, reader, role) for reader, role in (readers or {}).items()}
        boxes.close()
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Server:
        """Start the server, and wait until it answers."""
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.log = self.store.parent / f"server-{self.port}.log"
        arguments = ("--studies", str(self.studies), "--bundles", self.bundles, "--port", str(self.port))
        with self.log.open("wb") as log:
            # In a folder of its own, so that what MONAI Label keeps at home is not there.
            self.process = subprocess.Popen(
                label_command(self.store, *arguments),
                stdout=log,
                stderr=log,
                cwd=self.store.parent,
                env={**os.environ, "HOME": str(self.store.parent), "PYTHONPATH": str(ROOT)},
                start_new_session=True,
            )
        process = self.process
        wait_for(lambda: _answers(process, self.url, self.log), START_SECONDS, self.log)
        return self

    def call(self, method: str, path: str, token: str = "", **options: Any) -> requests.Response:
        """Send a request."""
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return requests.request(method, f"{self.url}{path}", headers=headers, timeout=600, **options)

    def get(self, path: str, token: str = "", **options: Any) -> Any:
        """Return the JSON of an address.

        Raises:
            ValueError: the server refuses it.
        """
        return _content(self.call("GET", path, token, **options))

    def send(self, method: str, path: str, token: str = "", **options: Any) -> Any:
        """Send a request that must succeed, and return its JSON.

        Raises:
            ValueError: the server refuses it.
        """
        return _content(self.call(method, path, token, **options))

    def kill(self) -> None:
        """End the server without a warning."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End the server."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            try:
                self.process.wait(60)
            except subprocess.TimeoutExpired:
                self.kill()


def label_command(store: Path, *arguments: str) -> list[str]:
    """Return the words of a command `monai-sr label`."""
    return [sys.executable, "-m", "monai_sr_bundle", "label", "--store", str(store), *arguments]


def _content(answer: requests.Response) -> Any:
    if not answer.ok:
        raise ValueError(f"{answer.status_code} {answer.text}")
    return answer.json()


def _answers(process: subprocess.Popen[bytes], address: str, log: Path) -> bool:
    if process.poll() is not None:
        raise ChildProcessError(log.read_text()[-4000:])
    try:
        return requests.get(address, timeout=5).status_code in (200, 401)
    except requests.ConnectionError:
        return False
