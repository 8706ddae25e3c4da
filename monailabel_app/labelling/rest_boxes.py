"""REST: boxes, their history, consensus, adjudication, audit, export and import."""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, File, Form, Path, Query, Request, Response, UploadFile
from monai_sr_bundle.boxes.box import LONGEST_TEXT, Box
from monai_sr_bundle.boxes.codes import finding_code, finding_name, public_codes
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, format_readings, parse_readings
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.dicom_file import open_header
from pydantic import StringConstraints
from pydicom.dataset import Dataset

from labelling.access import User
from labelling.box_store import CONSENSUS, Version
from labelling.catalogue import NAME, check_identity
from labelling.consensus import SAME_FINDING_IOU, agreement, disagreement, fuse
from labelling.context import Context
from labelling.errors import ConflictError, ForbiddenError, NotFoundError, PacsError, RefusedError
from labelling.formats import dicom_sr, exchange
from labelling.formats.slices import ImageFacts, ImageNames, ImportedReadings
from labelling.image_changes import UNREADABLE, is_drawn_on, leave_out_changed, say_missing, shortened

ImageName = Annotated[str, Path(pattern=NAME)]
READER = r"^[^\x00-\x1f\x7f]{1,64}$"
"""Names of readers in requests; one in DICOM may have spaces and carets."""
ReaderName = Annotated[str, Path(pattern=READER)]
Finding = Annotated[
    str, StringConstraints(strip_whitespace=True, max_length=LONGEST_TEXT, pattern=r"^[^\x00-\x1f\x7f]*$")
]
SECRET, FINDINGS, REPORT = "secret", "findings", "report"
"""Kinds of records of the server."""

router = APIRouter(tags=["Boxes"])


# Both are coroutines, as a function would be called in a thread of its own, for which every request would wait.
async def context_of(request: Request) -> Context:
    """Return the parts of the server."""
    return request.app.state.context  # type: ignore[no-any-return]


async def user_of(request: Request) -> User:
    """Return the sender of the request, whom the guard has identified."""
    user = request.scope["user"]
    assert isinstance(user, User)
    return user


Server = Annotated[Context, Depends(context_of)]
Sender = Annotated[User, Depends(user_of)]


def facts_of(context: Context, name: str) -> ImageFacts:
    """Return the facts of an image that formats need."""
    identity = context.catalogue.identity(name)

    def affine() -> np.ndarray:
        return files.read(context.catalogue.source(name)).grid.affine

    return ImageFacts(identity, context.catalogue.uids(name), affine)


def image_names(context: Context) -> ImageNames:
    """Return a finder of images by what files call them."""
    return ImageNames(context.catalogue.names(), lambda name: facts_of(context, name))


def checked_reading(context: Context, user: User, name: str, reading: Reading) -> Reading:
    """Return a reading of an image of this server, as it is stored: identity, reader, places and codes filled in.

    Raises:
        RefusedError: a reading of another image or state of it, or a finding that is none of the server's.
        ForbiddenError: a reading by somebody else.
        BoxError: a box that does not lie in the image.
    """
    facts = facts_of(context, name)
    check_identity(reading.image, facts.identity)
    reader = reading.reader if reading.reader.id else replace(reading.reader, id=user.name)
    if reader.id == CONSENSUS:
        raise ForbiddenError(f"the reader {CONSENSUS} is the server's own. Send PUT /boxes/IMAGE/adjudication.")
    user.require_reader(reader.id)
    require_findings(context, reading.boxes)
    return replace(
        reading,
        image=facts.identity,
        reader=reader,
        boxes=tuple(_complete(facts.placed(box), reader.id) for box in reading.boxes),
    )


def require_findings(context: Context, boxes: Sequence[Box]) -> None:
    """Refuse boxes without a finding, or with one that is none of the server's, by its name or this package's for it.

    Raises:
        RefusedError: such a box.
    """
    findings = context.store.record(FINDINGS, "all") or []
    allowed = {*findings, *(finding_name(finding_code(name)) for name in findings)}
    for box in boxes:
        if not box.finding:
            raise RefusedError("a box names no finding, expected one.")
        if findings and box.finding not in allowed:
            raise RefusedError(f"the finding {box.finding!r} is none of this server's: {', '.join(findings)}.")


@router.get("/boxes/", summary="Images that were read, with their readers")
def list_read_images(context: Server, user: Sender) -> dict[str, Any]:
    read = context.store.images()
    if not user.may("adjudicator"):  # a reader does not learn who else has read
        read = {name: {key: n for key, n in of_image.items() if key == user.name} for name, of_image in read.items()}
    images = {name: of_image for name, of_image in sorted(read.items()) if of_image}
    try:
        listed = set(context.catalogue.names())
    except PacsError as error:  # what was read is known without it
        return {"images": images, "left_out": [str(error)]}
    return {"images": images, "left_out": shortened([say_missing(name) for name in images if name not in listed])}


@router.get("/boxes/{image}", summary="The submitted version of every reader, and newer drafts")
def get_boxes(context: Server, user: Sender, image: ImageName) -> dict[str, Any]:
    versions, left_out = unchanged(context, image, _visible(context, user, context.store.current(image)))
    identity = _identity(context, image, left_out) or ImageIdentity(image)
    return {"image": vars(identity), "versions": [version.as_dict() for version in versions], "left_out": left_out}


@router.put("/boxes/{image}", summary="Save a draft or a submission as the reader's next version")
def put_boxes(
    context: Server,
    user: Sender,
    image: ImageName,
    document: Annotated[dict[str, Any], Body()],
    based_on: Annotated[int, Query(ge=0, description="number of the version that was seen last, 0 for none")] = 0,
) -> dict[str, Any]:
    readings = parse_readings(json.dumps(document))
    if len(readings) != 1:
        raise RefusedError(f"the document has {len(readings)} readings, expected 1. Use /import for more.")
    reading = checked_reading(context, user, image, readings[0])
    return context.store.save(reading, actor=user.name, based_on=based_on).as_dict()


@router.get("/boxes/{image}/history", summary="Every version")
def get_history(
    context: Server, user: Sender, image: ImageName, reader: Annotated[str | None, Query(pattern=READER)] = None
) -> dict[str, Any]:
    versions = _visible(context, user, context.store.history(image, reader))
    _, left_out = unchanged(context, image, versions)
    if not left_out:
        return {"versions": [version.as_dict() for version in versions]}
    identity = _identity(context, image, left_out)
    # That a version is there stays said, as the next one follows it. Its boxes would be shown on another image.
    entries = [version.as_dict() for version in versions]
    for entry, version in zip(entries, versions, strict=True):
        if identity is None or not is_drawn_on(version, identity):
            entry.pop("schema", None)
            entry.pop("readings", None)  # of a deleted one they are not there
            entry["other_image"] = True
    return {"versions": entries, "left_out": left_out}


@router.delete("/boxes/{image}/{reader}/{number}", summary="Delete the content of a version on request")
def delete_boxes(
    context: Server,
    user: Sender,
    image: ImageName,
    reader: ReaderName,
    number: Annotated[int, Path(ge=1)],
    reason: Annotated[str, Body(embed=True, max_length=1000)],
) -> dict[str, Any]:
    user.require("admin")
    return context.store.delete(image, reader, number, actor=user.name, reason=reason).as_dict()


@router.get("/boxes/{image}/agreement", summary="How well the readers agree, and each with the consensus")
def get_agreement(
    context: Server, user: Sender, image: ImageName, iou: Annotated[float, Query(gt=0, lt=1)] = SAME_FINDING_IOU
) -> dict[str, Any]:
    user.require("adjudicator")
    readings, left_out = _submitted(context, image)
    fused = fuse(readings, iou) if len(readings) > 1 else None
    return {
        "image": image,
        "readers": [reading.reader.id for reading in readings],
        "disagreement": disagreement(readings),
        "pairs": [vars(agreement(*pair)) for pair in combinations(readings, 2)],
        "with_consensus": [vars(agreement(reading, fused)) for reading in readings] if fused else [],
        "left_out": left_out,
    }


@router.post("/boxes/{image}/consensus", summary="Fuse the submitted readings; a draft until it is adjudicated")
def post_consensus(
    context: Server, user: Sender, image: ImageName, iou: Annotated[float, Query(gt=0, lt=1)] = SAME_FINDING_IOU
) -> dict[str, Any]:
    user.require("adjudicator")
    readings, left_out = _submitted(context, image)
    if left_out and len(readings) < 2:
        raise ConflictError(left_out[0])
    saved = context.store.save(fuse(readings, iou), actor=user.name, based_on=None).as_dict()
    return saved | ({"left_out": left_out} if left_out else {})


@router.put("/boxes/{image}/adjudication", summary="Decide on the consensus")
def put_adjudication(
    context: Server,
    user: Sender,
    image: ImageName,
    document: Annotated[dict[str, Any], Body()],
    based_on: Annotated[int, Query(ge=0)] = 0,
) -> dict[str, Any]:
    user.require("adjudicator")
    readings = parse_readings(json.dumps(document))
    if len(readings) != 1 or readings[0].status != "submitted":
        raise RefusedError("expected one reading with the status submitted.")
    decided = replace(readings[0], reader=Reader(user.name, "adjudicator"))
    checked = checked_reading(context, user, image, decided)
    boxes = tuple(replace(box, reader=CONSENSUS) for box in checked.boxes)
    consensus = replace(checked, reader=Reader(CONSENSUS, "adjudicator"), boxes=boxes)
    return context.store.save(consensus, actor=user.name, based_on=based_on).as_dict()


@router.get("/findings", summary="Names of findings that boxes may have; all where the list is empty")
def get_findings(context: Server, user: Sender) -> dict[str, list[str]]:
    return {"findings": context.store.record(FINDINGS, "all") or []}


@router.put("/findings", summary="Say which names of findings boxes may have")
def put_findings(
    context: Server, user: Sender, findings: Annotated[list[Finding], Body(embed=True, max_length=1000)]
) -> dict[str, list[str]]:
    user.require("admin")
    context.store.set_record(FINDINGS, "all", [name for name in findings if name])
    return get_findings(context, user)


@router.get("/audit", summary="The audit log, and whether it holds")
def get_audit(context: Server, user: Sender) -> dict[str, Any]:
    user.require("admin")
    return {"problems": context.store.verify(), "rows": context.store.audit()}


@router.get("/export", summary="Boxes in a format of others")
def get_export(
    context: Server,
    user: Sender,
    format: Annotated[str, Query(pattern=NAME)],
    image: Annotated[list[str] | None, Query()] = None,
    reader: Annotated[str | None, Query(pattern=READER)] = None,
    which: Annotated[str, Query(pattern="^(submitted|consensus)$")] = "submitted",
    names: bool = False,
) -> Response:
    if names:
        user.require("admin")
    readings, facts, headers, left_out = _selected(context, user, image, reader, which, with_headers=format == "dicom")
    if not names:
        readings = _pseudonymous(context, readings)
    exported = exchange.export(format, readings, facts, headers)
    name, content = exported.packed()
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    sentences = shortened([*left_out, *exported.notes])
    notes = {"X-Notes": json.dumps(sentences)} if sentences else {}
    return Response(content, media_type="application/octet-stream", headers={**disposition, **notes})


@router.post("/import", summary="Boxes from a format of others, all or none")
def post_import(
    context: Server,
    user: Sender,
    file: Annotated[UploadFile, File()],
    format: Annotated[str, Form(pattern=NAME)],
    reader: Annotated[str, Form(pattern=NAME)] = "import",
    image: Annotated[str | None, Form(pattern=NAME)] = None,
) -> dict[str, Any]:
    user.require("admin")
    facts = facts_of(context, image) if image else None
    headers = context.catalogue.headers(image) if image else []
    content = file.file.read()
    imported = exchange.read(format, content, image_names(context), reader=reader, image=facts, headers=headers)
    return _save(context, user, imported)


@router.post("/import/pacs", summary="Boxes of every report of others in the PACS")
def post_import_from_pacs(context: Server, user: Sender) -> dict[str, Any]:
    user.require("admin")
    pacs = context.require_pacs()
    names = image_names(context)
    collected, reports = ImportedReadings(), 0
    own_reports = context.store.records(REPORT)
    for report in pacs.reports():
        if str(report.SOPInstanceUID) in own_reports:  # its reader would count twice
            continue
        match = next(filter(None, map(names.find, dicom_sr.images_of(report))), None)
        reports += 1
        if match is None:
            collected.notes.append("a report is of an image that this server does not have, and is left out.")
            continue
        facts = match[0]
        content = _as_file(report)
        try:
            imported = dicom_sr.read(content, facts, context.catalogue.headers(facts.identity.id), names, "import")
        except InputError:
            collected.notes.append("a report has no box that can be read, and is left out.")
            continue
        for field in ("readings", "unknown_images", "unknown_findings", "notes"):
            getattr(collected, field).extend(getattr(imported, field))
    return {"reports": reports, **_save(context, user, collected)}


@router.post("/export/pacs", summary="Store a report of every reader in the PACS")
def post_export_to_pacs(
    context: Server,
    user: Sender,
    image: Annotated[list[str] | None, Query()] = None,
    which: Annotated[str, Query(pattern="^(submitted|consensus)$")] = "submitted",
    names: bool = False,
) -> dict[str, Any]:
    import tempfile
    from pathlib import Path as FilePath

    user.require("admin")
    pacs = context.require_pacs()
    readings, facts, headers, left_out = _selected(context, user, image, None, which, with_headers=True)
    exported = exchange.export("dicom", readings if names else _pseudonymous(context, readings), facts, headers)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, content in enumerate(exported.files.values()):
            paths.append(FilePath(folder, f"{number}.dcm"))
            paths[-1].write_bytes(content)
            # Before they are sent: of a PACS that answers too late nobody knows which it has kept.
            uid = str(open_header(paths[-1], ["SOPInstanceUID"]).SOPInstanceUID)
            context.store.set_record(REPORT, uid, {"by": user.name})
        uids = pacs.store(paths)
    context.store.note("store", actor=user.name, reason=f"{len(uids)} reports")
    return {"stored": uids, "notes": shortened([*left_out, *exported.notes])}


def _visible(context: Context, user: User, versions: Sequence[Version]) -> list[Version]:
    """Leave out what a reader must not see before reading: everything of other readers."""
    return [version for version in versions if user.may("adjudicator") or version.reader == user.name]


def unchanged(context: Context, image: str, versions: Sequence[Version]) -> tuple[list[Version], list[str]]:
    """Return what `leave_out_changed` does, of an image that is there.

    Raises:
        NotFoundError: no such image; the message says so if it has readings.
    """
    same, left_out = leave_out_changed(context.catalogue, image, versions)
    if not same:
        try:
            context.require_image(image)
        except NotFoundError as error:
            raise NotFoundError(left_out[0] if left_out else str(error)) from error
    return same, left_out


def _identity(context: Context, image: str, left_out: Sequence[str]) -> ImageIdentity | None:
    """Return the identity of an image; None if it cannot be read, and a sentence of `unchanged` says so already."""
    try:
        return context.catalogue.identity(image)
    except UNREADABLE:
        if not left_out:
            raise
        return None


def _submitted(context: Context, image: str) -> tuple[list[Reading], list[str]]:
    versions, left_out = unchanged(context, image, context.store.submitted(image))
    return [version.reading for version in versions if version.reading is not None], left_out


def _selected(
    context: Context, user: User, images: list[str] | None, reader: str | None, which: str, *, with_headers: bool
) -> tuple[list[Reading], dict[str, ImageFacts], dict[str, list[Dataset]], list[str]]:
    """Return readings, what formats need of their images, and a sentence on every image whose readings are left out."""
    readings: list[Reading] = []
    left_out: list[str] = []
    listed, read = set(context.catalogue.names()), context.store.images()
    if unknown := [name for name in images or () if name not in listed | read.keys()]:
        raise NotFoundError(f"there is no such image on this server ({len(unknown)} of {len(images or ())} names).")
    for name in images or sorted(read):
        versions: Iterator[Version] = (version for version in context.store.current(name))
        if which == "consensus":
            chosen = [each for each in versions if each.reader == CONSENSUS][:1]
        else:
            chosen = [each for each in versions if each.status == "submitted" and each.reader != CONSENSUS]
        chosen = _visible(context, user, [each for each in chosen if reader in (None, each.reader)])
        if chosen and name not in listed:
            left_out.append(say_missing(name))
            continue
        chosen, sentences = leave_out_changed(context.catalogue, name, chosen)
        left_out += sentences
        readings += [version.reading for version in chosen if version.reading is not None]
    if not readings:
        raise NotFoundError(" ".join([f"there is no {which} reading to export.", *left_out[:3]]))
    used = dict.fromkeys(reading.image.id for reading in readings)
    facts = {name: facts_of(context, name) for name in used}
    headers = {name: context.catalogue.headers(name) for name in used if with_headers}
    return readings, facts, headers, left_out


def _pseudonymous(context: Context, readings: Sequence[Reading]) -> list[Reading]:
    secret = context.store.record(SECRET, "pseudonyms")
    if secret is None:
        secret = secrets.token_hex(32)
        context.store.set_record(SECRET, "pseudonyms", secret)
    renamed = []
    for reading in readings:
        name = reading.reader.id if reading.reader.id == CONSENSUS else exchange.pseudonym(reading.reader.id, secret)
        boxes = tuple(replace(box, reader=name) for box in reading.boxes)
        renamed.append(replace(reading, reader=replace(reading.reader, id=name), boxes=boxes))
    return renamed


def _save(context: Context, user: User, imported: ImportedReadings) -> dict[str, Any]:
    """Check all readings, then save them."""
    readings = []
    for reading in imported.readings:
        identity = context.catalogue.identity(reading.image.id)
        check_identity(reading.image, identity)
        if reading.reader.id in ("", CONSENSUS):
            named = f"called {CONSENSUS}, which is the server's own" if reading.reader.id else "without a name"
            raise RefusedError(f"a reader is {named}. Rename it.")
        readings.append(replace(reading, image=identity))
    format_readings(readings)
    saved = context.store.save_imported(readings, actor=user.name)
    return {
        "saved": [{"image": each.image, "reader": each.reader, "number": each.number} for each in saved],
        "boxes": sum(len(reading.boxes) for reading in imported.readings),
        "unknown_images": imported.unknown_images,
        "unknown_findings": sorted(set(imported.unknown_findings)),
        "notes": imported.notes,
    }


def _as_file(report: Dataset) -> bytes:
    import io

    buffer = io.BytesIO()
    report.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def _complete(box: Box, reader: str) -> Box:
    return replace(box, reader=reader, codes=box.codes or public_codes(box.finding))
