"""REST: images, super-resolution, the next image, training, and what MONAI Label's clients call the datastore."""

from __future__ import annotations

import io
import json
import os
import threading
import time
import zipfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Body, File, Form, Path, Query, Response, UploadFile
from fastapi.responses import FileResponse
from monai_sr_bundle.errors import SuperResolutionError
from monai_sr_bundle.images import files
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.uncertainty.error_bars import has_error_bars
from requests_toolbelt import MultipartEncoder

from labelling import next_image
from labelling.access import LOCAL
from labelling.box_store import CONSENSUS
from labelling.catalogue import NAME, safe_name
from labelling.context import RESULTS, Context
from labelling.datastore import SUBMITTED, BoxDatastore
from labelling.enhancing import EnhancedImage, Task
from labelling.errors import BusyError, ConflictError, NotFoundError, RefusedError, ServerError, StoppedError
from labelling.formats import slicer_markups
from labelling.formats.nifti import is_left_handed, to_nifti
from labelling.guard import as_json, log_mistake
from labelling.image_changes import find_problem
from labelling.rest_boxes import Sender, Server, facts_of, image_names, require_findings, unchanged
from labelling.training_data import agreed_reading
from labelling.training_jobs import RUNNING

router = APIRouter(tags=["Images"])
SAVED_BOXES = "boxes"
"""The task that gives a reader the boxes they have saved; no bundle."""
ModelName = Annotated[str, Path(pattern=NAME)]
_OPTIONS = {
    "scale": int, "region": list, "slices": list, "spacing_mm": list, "seed": int, "steps": int, "samples": int,
    "texture": float, "strength": float, "error_bars": bool, "force": bool, "force_model": bool, "store": bool,
}  # fmt: skip
_OF_CLIENTS = {
    "client_id", "device", "result_extension", "result_dtype", "result_compress", "result_write_to_file", "model",
    "label_info", "logging", "model_filename", "save_label", "label_tag",
}  # fmt: skip
"""Parameters that MONAI Label's clients send along, and that mean nothing here."""


@router.get("/datastore/", summary="The images")
def get_datastore(context: Server, user: Sender, output: str = "stats") -> Any:
    datastore = BoxDatastore(context.catalogue, context.store)
    return {"all": datastore.json, "train": datastore.datalist}.get(output, datastore.status)()


@router.get("/datastore/image", summary="The file of an image; of DICOM NIfTI, or the file or a zip of the files")
@router.head("/datastore/image", include_in_schema=False)
def get_image(
    context: Server,
    user: Sender,
    image: Annotated[str, Query(pattern=NAME)],
    series: Annotated[str, Query(pattern="^(nifti|zip)$")] = "nifti",
) -> Response:
    source = context.catalogue.source(image)
    if source.format == "dicom" and series == "nifti":
        # MONAI Label's module for Slicer opens one file, and sends boxes back in millimetres. From the DICOM of many a
        # radiograph Slicer reads another spacing than this server does.
        return Response(
            to_nifti(files.read(source)), media_type="application/octet-stream", headers=_named(f"{image}.nii")
        )
    if len(source.files) == 1:
        return FileResponse(source.files[0], filename=source.files[0].name)
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, file in enumerate(source.files):
            archive.write(file, f"{number:05d}.dcm")
    return Response(buffer.getvalue(), media_type="application/zip", headers=_named(f"{image}.zip"))


@router.get("/datastore/image/info", summary="Identity of an image")
def get_image_info(context: Server, user: Sender, image: Annotated[str, Query(pattern=NAME)]) -> dict[str, Any]:
    return BoxDatastore(context.catalogue, context.store).get_image_info(image)


@router.get("/datastore/image/find", summary="Identity of the image with a SOP Instance UID, or of one that is a file")
def find_image(
    context: Server,
    user: Sender,
    sop_instance_uid: Annotated[str | None, Query(pattern=r"^[0-9.]{1,64}$")] = None,
    sha256: Annotated[str | None, Query(pattern="^[0-9a-f]{64}$")] = None,
    size: Annotated[int, Query(ge=0, description="of the file, in bytes")] = 0,
) -> dict[str, Any]:
    if (sop_instance_uid is None) == (sha256 is None):
        raise RefusedError("expected either sop_instance_uid, or sha256 and size.")
    catalogue = context.catalogue
    if sop_instance_uid is not None:
        name = catalogue.find_instance(sop_instance_uid)
    else:
        name = catalogue.find_file(str(sha256), size)
    return {**vars(catalogue.identity(name)), "left_handed": is_left_handed(catalogue.source(name))}


@router.put("/datastore/label", summary="Slicer's own submit: markups become the reader's next submitted version")
def put_label(
    context: Server,
    user: Sender,
    image: Annotated[str, Query(pattern=NAME)],
    label: Annotated[UploadFile, File()],
    params: Annotated[str, Form()] = "{}",
    tag: Annotated[str, Query(pattern=f"^$|{NAME}")] = "",
) -> dict[str, Any]:
    sent = as_json(params, "params")
    facts = facts_of(context, image)
    name = (label.filename or "").lower()
    if not name.endswith(".json"):
        raise RefusedError("the label is no JSON of boxes (ROI). This server keeps boxes; segmentations have no place.")
    # A server without tokens knows its readers by what they call themselves.
    reader = user.name if user != LOCAL else _client_name(sent)
    imported = slicer_markups.read(label.file.read(), facts, image_names(context), reader)
    (reading,) = imported.readings
    require_findings(context, reading.boxes)
    version = context.store.save(reading, actor=user.name, based_on=None)
    return {
        "image": image, "label": image, "reader": reader, "number": version.number,
        "unknown_findings": imported.unknown_findings, "notes": imported.notes,
    }  # fmt: skip


@router.get("/datastore/label", summary="Boxes as Slicer's markups: of the consensus (final) or of the reader")
@router.head("/datastore/label", include_in_schema=False)
def get_label(
    context: Server,
    user: Sender,
    label: Annotated[str, Query(pattern=NAME)],
    tag: Annotated[str, Query(pattern=NAME)] = "final",
) -> Response:
    if tag == "final":
        user.require("adjudicator")  # a reader who has seen the consensus would not read any more
        versions, left_out = unchanged(context, label, context.store.current(label))
        reading = agreed_reading(versions)
        if reading is None:
            raise NotFoundError(left_out[0] if left_out else "no reader has submitted this image.")
        content = slicer_markups.write(reading, facts_of(context, label))
    else:
        reader = user.name if tag == SUBMITTED else tag.removeprefix("reader_")
        user.require_reader(reader)
        content = _markups_of(context, label, reader)
    return Response(content, media_type="application/json", headers=_named(f"{label}.mrk.json"))


@router.post("/infer/{model}", summary="Super-resolve an image, a volume or a region of it")
def post_infer(
    context: Server,
    user: Sender,
    model: ModelName,
    image: Annotated[str, Query(pattern=NAME)],
    params: Annotated[str, Form()] = "{}",
    output: Annotated[str, Query(pattern="^(image|json|all)$")] = "all",
) -> Response:
    sent = as_json(params, "params")
    if model == SAVED_BOXES:
        reader = user.name if user != LOCAL else _client_name(sent)
        content = _markups_of(context, image, reader)
        figures = {"image": image, "boxes": len(json.loads(content)["markups"])}
        return _several(figures, f"{image}.json", content) if output == "all" else Response(content)
    with context.enhancer.enhance(task_of(context, model, image, sent), context.folder / RESULTS) as enhanced:
        answer = enhanced.report | {"image": image}
        promotions = context.models.promotions(model)
        if promotions and answer["error_bars"] is None and not has_error_bars(context.models.find(model)):
            reason = (
                promotions[-1]["report"].get("error_bars") or "No error bars: these weights have none of their own."
            )
            answer["warnings"] = [*answer["warnings"], reason]
        if sent.get("store"):
            answer["stored"] = context.require_pacs().store([*enhanced.files, *enhanced.maps])
            context.store.note("store", actor=user.name, image=image, reason=f"result of {model}")
        if output == "json":
            return Response(json.dumps(answer), media_type="application/json")
        name, content = _packed(enhanced, image)
    if output == "image":
        return Response(content, media_type="application/octet-stream", headers=_named(name))
    return _several(answer, name, content)


def task_of(context: Context, model: str, image: str, params: dict[str, Any]) -> Task:
    """Return the task of a request.

    Raises:
        NotFoundError: no such bundle or image.
        RefusedError: an unknown parameter, or a value of another type.
    """
    bundle = context.models.find(model)
    for name, value in params.items():
        if name in _OF_CLIENTS:
            continue
        if name not in _OPTIONS:
            raise RefusedError(f"params has the unknown field {name!r}, expected one of {', '.join(_OPTIONS)}.")
        kind = _OPTIONS[name]
        is_right = isinstance(value, int | float if kind is float else kind)
        if value is not None and (not is_right or (isinstance(value, bool) and kind is not bool)):
            raise RefusedError(f"params.{name} is {json.dumps(value)[:80]}, expected {kind.__name__}.")
    lengths = {"region": 4, "slices": 2, "spacing_mm": 2}
    numbers: dict[str, tuple[Any, ...] | None] = {}
    for name, length in lengths.items():
        value = params.get(name)
        whole = int if name != "spacing_mm" else (int, float)
        if value is not None and (len(value) != length or not all(type(each) in (int, float) for each in value)):
            raise RefusedError(f"params.{name} is {json.dumps(value)[:80]}, expected {length} numbers.")
        if value is not None and not all(isinstance(each, whole) for each in value):
            raise RefusedError(f"params.{name} is {json.dumps(value)[:80]}, expected whole numbers.")
        numbers[name] = None if value is None else tuple(value)
    sampler = SamplerOptions(
        params.get("seed") or 0,
        params.get("steps"),
        params.get("samples"),
        params.get("texture"),
        strength=params.get("strength"),
    )
    return Task(
        context.catalogue.source(image),
        str(bundle.folder),
        params.get("scale"),
        numbers["region"],
        numbers["slices"],
        numbers["spacing_mm"],
        sampler,
        params.get("error_bars"),
        force=bool(params.get("force")),
        force_model=bool(params.get("force_model")),
    )


@router.post("/activelearning/{strategy}", summary="The next image of a reader")
def post_next(
    context: Server,
    user: Sender,
    strategy: Annotated[str, Path(pattern=NAME)],
    params: Annotated[dict[str, Any] | None, Body()] = None,
) -> dict[str, Any]:
    reader = user.name if user != LOCAL else _client_name(params or {})
    images, find = context.catalogue.names(), partial(find_problem, context.catalogue, context.store)
    chosen = next_image.next_image(context.store, images, reader, strategy, find)
    if not chosen:
        return {}
    identity = context.catalogue.identity(chosen["id"])
    # Not `path`: a client on this machine would open the file itself, and a server's paths are its own.
    source = context.catalogue.source(chosen["id"])
    name = f"{identity.id}.nii" if source.format == "dicom" else source.files[0].name
    return {**chosen, "name": name, "rows": identity.rows}


@router.get("/activelearning/left_out", summary="Images that the queue has left out so far, and why")
def get_left_out(context: Server, user: Sender) -> dict[str, Any]:
    user.require("admin")
    return {"left_out": next_image.left_out(context.store, context.catalogue.names())}


@router.put("/activelearning/readers", summary="How many readers an image is to have")
def put_readers_per_image(context: Server, user: Sender, readers: Annotated[int, Body(embed=True)]) -> dict[str, int]:
    user.require("admin")
    next_image.set_readers_per_image(context.store, readers)
    return {"readers": readers}


@router.get("/activelearning/error_bars/widths", summary="Mean half-width of the error bars of the images")
def get_widths(context: Server, user: Sender) -> dict[str, Any]:
    return {"images": next_image.widths(context.store), "running": _measuring.locked()}


@router.post("/activelearning/error_bars/measure", summary="Measure error bars in the background", status_code=202)
def post_measure(
    context: Server,
    user: Sender,
    model: Annotated[str, Body(pattern=NAME)],
    images: Annotated[list[str] | None, Body()] = None,
    scale: Annotated[int | None, Body()] = None,
) -> dict[str, Any]:
    user.require("admin")
    bundle = context.models.find(model).at_scale(scale)
    if not has_error_bars(bundle):
        raise ConflictError("this bundle has no calibrated error bars at this scale. Name another.")
    names = images if images is not None else context.catalogue.names()
    tasks = [
        (name, replace(task_of(context, model, name, {}), scale=scale, error_bars=True, write=False)) for name in names
    ]
    if not _measuring.acquire(blocking=False):
        raise ConflictError("error bars are being measured. Wait until that is done.")
    threading.Thread(target=_measure, args=(context, model, tasks), daemon=True).start()
    return {"images": len(tasks)}


_measuring = threading.Lock()
BUSY_SECONDS = 5
"""How long the measuring of error bars waits for readers who wait for their images."""


def _measure(context: Context, model: str, tasks: Sequence[tuple[str, Task]]) -> None:
    try:
        for name, task in tasks:
            next_image.set_width(context.store, name, model, _measure_width(context, task))
    except StoppedError:
        pass
    except Exception as error:
        log_mistake(error)
    finally:
        _measuring.release()


def _measure_width(context: Context, task: Task) -> float | None:
    while True:
        try:
            with context.enhancer.enhance(task, context.folder / RESULTS) as enhanced:
                return enhanced.mean_half_width
        except BusyError:  # readers come first
            time.sleep(BUSY_SECONDS)
        except (SuperResolutionError, ServerError):  # of another modality, too small, or too large: it has none
            return None


@router.get("/train/", summary="The trainings")
def get_trainings(context: Server, user: Sender, check_if_running: bool = False) -> dict[str, Any]:
    trainings = context.jobs.jobs()
    if check_if_running and not any(each["state"] in RUNNING for each in trainings):
        raise NotFoundError("no training is running.")
    return {"trainings": trainings}


@router.get("/train/{job}", summary="One training, with its progress or its report")
def get_training(context: Server, user: Sender, job: ModelName) -> dict[str, Any]:
    return context.jobs.job(job)


@router.post("/train/{model}", summary="Fine-tune a bundle on the boxes, in the background")
def post_training(
    context: Server, user: Sender, model: ModelName, params: Annotated[dict[str, Any] | None, Body()] = None
) -> dict[str, Any]:
    user.require("admin")
    sent = {key: value for key, value in (params or {}).items() if key not in ("client_id", "model", "name")}
    kinds = {
        "iterations": int, "box_weight": (int, float), "box_repeats": int, "stage": str, "seed": int, "promote": bool,
    }  # fmt: skip
    for name, value in sent.items():
        if name not in kinds:
            raise RefusedError(f"the training has no option {name!r}; it has {', '.join(kinds)}.")
        if not isinstance(value, kinds[name]) or (isinstance(value, bool) and name != "promote"):  # type: ignore[arg-type]
            raise RefusedError(f"{name} is {json.dumps(value)[:80]}, which is of another type than expected.")
    return context.jobs.job(context.jobs.start(model, actor=user.name, **sent))


@router.delete("/train/", summary="Cancel the training that is running")
def delete_running_training(context: Server, user: Sender) -> dict[str, Any]:
    user.require("admin")
    running = [each["job"] for each in context.jobs.jobs() if each["state"] in RUNNING]
    if not running:
        raise NotFoundError("no training is running.")
    return context.jobs.cancel(running[0], actor=user.name)


@router.delete("/train/{job}", summary="Cancel a training")
def delete_training(context: Server, user: Sender, job: ModelName) -> dict[str, Any]:
    user.require("admin")
    return context.jobs.cancel(job, actor=user.name)


@router.get("/model/{model}", summary="The weights of a bundle that are in use, and how they came to be")
def get_model(context: Server, user: Sender, model: ModelName) -> dict[str, Any]:
    bundle = context.models.find(model)
    promotions = context.models.promotions(model)
    return {
        "bundle": model, "version": bundle.version, "weights_sha256": bundle.metadata["weights_sha256"].get("model.pt"),
        "in_use": promotions[-1]["job"] if promotions else "shipped", "promotions": promotions,
    }  # fmt: skip


@router.post("/model/{model}/promote", summary="Use the weights of a training")
def post_promote(
    context: Server, user: Sender, model: ModelName, job: Annotated[str, Body(embed=True, pattern=NAME)]
) -> dict[str, Any]:
    user.require("admin")
    done = context.jobs.job(job)
    if done["bundle"] != model or done["state"] != "done":
        raise ConflictError("this is no finished training of this bundle.")
    if not done["report"]["not_worse"]:
        raise ConflictError(f"its weights are not promoted. {done['report']['reason']}")
    if any(each["job"] == job for each in context.models.promotions(model)):
        raise ConflictError("its weights are promoted already.")
    context.models.promote(model, job, done["report"], actor=user.name)
    return get_model(context, user, model)


@router.post("/model/{model}/rollback", summary="Go back to the weights before")
def post_rollback(context: Server, user: Sender, model: ModelName) -> dict[str, Any]:
    user.require("admin")
    context.models.roll_back(model, actor=user.name)
    return get_model(context, user, model)


def _packed(enhanced: EnhancedImage, image: str) -> tuple[str, bytes]:
    """Return the result as one file: itself where it is one without error bars, else a zip."""
    if len(enhanced.files) == 1 and not enhanced.maps:
        return safe_name(enhanced.files[0].name), enhanced.files[0].read_bytes()
    buffer = io.BytesIO()
    root = FilePath(os.path.commonpath([file.parent for file in (*enhanced.files, *enhanced.maps)]))
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for file in (*enhanced.files, *enhanced.maps):
            archive.write(file, file.relative_to(root))
    return f"{image}_sr.zip", buffer.getvalue()


def _several(figures: dict[str, Any], name: str, content: bytes) -> Response:
    """Answer as MONAI Label does: the figures and the file in one body of several parts."""
    body = MultipartEncoder(
        fields={
            "params": (None, json.dumps(figures), "application/json"),
            "image": (name, content, "application/octet-stream"),
        }
    )
    return Response(body.read(), media_type=body.content_type)


def _markups_of(context: Context, image: str, reader: str) -> bytes:
    """Return the newest boxes of a reader as Slicer's markups.

    Raises:
        NotFoundError: no such image, or none saved.
    """
    current = [each for each in context.store.current(image) if each.reader == reader]
    versions, left_out = unchanged(context, image, current)
    reading = next((each.reading for each in reversed(versions) if each.reading is not None), None)
    if reading is None:
        raise NotFoundError(left_out[0] if left_out else "this reader has saved no boxes of this image.")
    return slicer_markups.write(reading, facts_of(context, image))


def _client_name(params: dict[str, Any]) -> str:
    """Return the reader by the name that a client gives itself.

    Raises:
        RefusedError: it is no name.
    """
    import re

    name = str(params.get("client_id") or LOCAL.name)
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", name)[:64]
    if not re.fullmatch(NAME, plain) or plain == CONSENSUS:
        raise RefusedError("client_id cannot be the name of a reader.")
    return plain


def _named(name: str) -> dict[str, str]:
    return {"Content-Disposition": f'attachment; filename="{name}"'}
