"""The server of MONAI Label's app in this process."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import threading
from functools import cache
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "monailabel_app"))

from fastapi import FastAPI
from fastapi.testclient import TestClient
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


def answer(folder: Path) -> tuple[int, str]:
    """Answer the request of a case; its store is a copy, so that no case changes the next one's.

    Returns:
        The HTTP status, and the body as text; 0 if no client can send the request.
    """
    client, prepared = _client(), _prepared()
    try:
        request = client.build_request(**_read_request(folder))
    except Exception as error:
        return 0, str(error)
    store_folder = folder.parent / "store"
    store_folder.mkdir()
    shutil.copyfile(prepared.store.file, store_folder / STORE_FILE)
    context = _open(store_folder, prepared.catalogue)
    try:
        client.app.state.context = context
        response = client.send(request)
    finally:
        context.close()
        context.enhancer._slots.release()  # a measurement that waits for its turn sees that the server has ended
        for thread in threading.enumerate():  # nothing of a case goes on beside the next one
            if thread is not threading.current_thread():
                thread.join(10)
    return response.status_code, response.text


@cache
def _client() -> TestClient:
    app = FastAPI()
    guard.protect(app, store=lambda: app.state.context.store)
    for router in (rest_login.router, rest_boxes.router, rest_images.router):
        app.include_router(router)
    return TestClient(app, base_url="http://127.0.0.1", client=("127.0.0.1", 1))


@cache
def _prepared() -> Context:
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
    rest_images.BUSY_SECONDS = 0.01
    for _ in range(MOST_WAITING):  # what would be enlarged is refused: the parameters are what a case is about
        enhancer._slots.acquire()
    jobs = TrainingJobs(store, catalogue, models, folder / "jobs")
    return Context(folder, store, catalogue, models, enhancer, jobs, lock_store(folder))


def _read_request(folder: Path) -> dict[str, Any]:
    """Return the request of a case as a client's arguments; one that is no JSON is sent as a body itself."""
    raw = (folder / "request.json").read_bytes()
    as_json = {"headers": {"content-type": "application/json"}}
    try:
        case = json.loads(raw)
    except (ValueError, RecursionError):
        return {"method": "PUT", "url": f"/boxes/{FILM}", "content": raw, **as_json}
    method, path = case["to"]
    request = {"method": method, "url": path, "params": case.get("query")}
    uploads = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "request.json"}
    if not uploads and "form" not in case:
        return {**request, "content": json.dumps(case.get("json")), **as_json}
    form = case.get("form") or {}
    field = "label" if "params" in form else "file"
    return {**request, "data": form, "files": [(field, upload) for upload in uploads.items()]}
