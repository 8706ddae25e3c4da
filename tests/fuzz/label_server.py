"""The server of MONAI Label's app in this process, without its guard: what its functions do not catch comes out."""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import ensemble_boxes  # noqa: F401  # which the server imports late: once here, not in the process of every case
import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "monailabel_app"))

from fastapi import FastAPI
from labelling import compatibility, guard, rest_boxes, rest_images, rest_login  # noqa: F401  # compatibility first
from labelling.access import LOCAL
from labelling.box_store import BoxStore
from labelling.catalogue import FolderCatalogue
from labelling.context import STORE_FILE, Context, lock_store
from labelling.enhancing import MOST_WAITING, Enhancer
from labelling.models import Models
from labelling.training_jobs import TrainingJobs
from monai_sr_bundle.boxes.readings import parse_readings

from tests.fuzz.label_requests import BUNDLE, FILM, VOLUME, document
from tests.fuzz.seeds import BOXES
from tests.images.dicom_files import phantom, radiograph

BOUNDARY = "a-boundary-of-parts"


def answer(folder: Path) -> tuple[int, str]:
    """Answer the request of a case; its store is a copy, so that no case changes the next one's.

    Returns:
        The HTTP status, and the body as text.

    Raises:
        Exception: whatever the server's functions do not catch.
    """
    store_folder = folder.parent / "store"
    store_folder.mkdir()
    shutil.copyfile(prepare_server().store.file, store_folder / STORE_FILE)
    context = _open(store_folder, prepare_server().catalogue)
    try:
        app = _app()
        app.state.context = context
        status, body = asyncio.run(_call(app, *_read_request(folder)))
    finally:
        context.close()
        for thread in threading.enumerate():  # nothing of a case goes on beside the next one
            if thread is not threading.current_thread():
                thread.join(10)
    return status, body.decode("utf-8", "replace")


@cache
def _app() -> FastAPI:
    app = FastAPI()
    guard.protect(app, store=lambda: prepare_server().store)
    app.user_middleware = [each for each in app.user_middleware if each.cls is not guard.Guard]
    for router in (rest_login.router, rest_boxes.router, rest_images.router):
        app.include_router(router)
    return app


@cache
def prepare_server() -> Context:
    """Return the parts of a server with two images, one of them read by two readers, whose store the cases copy."""
    folder = Path(_folder().name)
    images = folder / "images"
    images.mkdir()
    radiograph(images / FILM)
    nibabel.save(nibabel.Nifti1Image(phantom(slices=3).T, np.diag([0.2, 0.1, 2.5, 1])), images / VOLUME)
    context = _open(folder, FolderCatalogue(images))
    for reader in ("ada", "eve"):
        (reading,) = parse_readings(json.dumps(document(FILM, *BOXES, reader=reader)))
        checked = rest_boxes.checked_reading(context, LOCAL, FILM, reading)
        context.store.save(checked, actor=reader, based_on=0)
    context.close()
    return context


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="fuzz-server-")


def _open(folder: Path, catalogue: FolderCatalogue) -> Context:
    store = BoxStore(folder / STORE_FILE)
    models = Models(store, folder / "models", [BUNDLE])
    enhancer = Enhancer()
    for _ in range(MOST_WAITING):  # what would be enlarged is refused: the parameters are what a case is about
        enhancer._slots.acquire()
    jobs = TrainingJobs(store, catalogue, models, folder / "jobs")
    return Context(folder, store, catalogue, models, enhancer, jobs, lock_store(folder))


def _read_request(folder: Path) -> tuple[str, str, bytes, str, bytes]:
    """Return method, path, query, content type and body; a request that is no JSON object is sent as a body itself."""
    raw = (folder / "request.json").read_bytes()
    try:
        request: Any = json.loads(raw)
    except (ValueError, RecursionError):
        request = None
    if not isinstance(request, dict):
        return "PUT", f"/boxes/{FILM}", b"", "application/json", raw
    query = request.get("query") or {}
    pairs = query if isinstance(query, dict) else {"query": query}
    text = urlencode({str(key): value for key, value in pairs.items()}, doseq=isinstance(query, dict), errors="replace")
    uploads = [path for path in folder.iterdir() if path.name != "request.json"]
    kind, body = "application/json", json.dumps(request.get("json")).encode()
    if uploads or "form" in request:
        form = request.get("form")
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        body = _multipart(form if isinstance(form, dict) else {"form": form}, uploads)
    to = request.get("to")
    method, path = to if isinstance(to, list) and len(to) == 2 else ("PUT", to)
    return str(method), str(path), text.encode(), kind, body


def _multipart(form: dict[str, Any], uploads: list[Path]) -> bytes:
    parts = [(f'name="{name}"', str(value).encode("utf-8", "replace")) for name, value in form.items()]
    field = "label" if "params" in form else "file"
    parts += [(f'name="{field}"; filename="{path.name}"', path.read_bytes()) for path in uploads]
    lines = b"".join(
        f"--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n".encode("utf-8", "replace") + body + b"\r\n"
        for head, body in parts
    )
    return lines + f"--{BOUNDARY}--\r\n".encode()


async def _call(app: FastAPI, method: str, path: str, query: bytes, kind: str, body: bytes) -> tuple[int, bytes]:
    """Send one request by ASGI, with the user that the guard would have found."""
    headers = [(b"host", b"127.0.0.1"), (b"content-type", kind.encode()), (b"content-length", b"%d" % len(body))]
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http", "method": method,
        "path": path, "raw_path": path.encode("utf-8", "replace"), "root_path": "", "query_string": query,
        "headers": headers, "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 80), "user": LOCAL,
    }  # fmt: skip
    sent = False
    answers: list[Any] = []

    async def receive() -> Any:
        nonlocal sent
        if sent:
            return {"type": "http.disconnect"}
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        answers.append(message)

    await app(scope, receive, send)
    return answers[0]["status"], b"".join(message.get("body", b"") for message in answers[1:])
