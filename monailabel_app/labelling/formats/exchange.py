"""All formats: which go out, which come in, and how several files travel as one."""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from monai_sr_bundle.boxes.box import BoxError
from monai_sr_bundle.boxes.readings import Reading, format_readings, parse_readings
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.zipped import ZIP_ERRORS
from pydicom.dataset import Dataset

from labelling.errors import RefusedError
from labelling.formats import coco, dicom_sr, lidc, pascal_voc, slicer_markups, tables, yolo
from labelling.formats.slices import ImageFacts, ImageNames, ImportedReadings, folder_of, known_finding

EXPORTS = ("json", "coco", "yolo", "voc", "nih", "vinbigdata", "slicer", "dicom")
IMPORTS = ("json", "coco", "yolo", "nih", "lidc", "slicer", "dicom")
LARGEST_UNZIPPED = 1024**3
MOST_FILES = 200_000


@dataclass(frozen=True)
class ExportedFiles:
    """Files of an export.

    Attributes:
        files: contents by path.
        notes: one sentence for everything that the format cannot hold.
    """

    files: dict[str, bytes]
    notes: tuple[str, ...] = ()

    def packed(self) -> tuple[str, bytes]:
        """Return the one file by name, or all of them in a zip."""
        if len(self.files) == 1:
            ((path, content),) = self.files.items()
            return path.rpartition("/")[2], content
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for path, content in sorted(self.files.items()):
                archive.writestr(path, content)
        return "boxes.zip", buffer.getvalue()


def export(
    name: str, readings: Sequence[Reading], facts: Mapping[str, ImageFacts], headers: Mapping[str, Sequence[Dataset]]
) -> ExportedFiles:
    """Write readings in a format.

    Args:
        name: one of `EXPORTS`.
        readings: readings of images in `facts`.
        facts: facts of each image.
        headers: DICOM headers of each image, for the format "dicom".

    Raises:
        RefusedError: an unknown format.
        BoxError: see the format.
    """
    if name == "json":
        return ExportedFiles({"boxes.json": format_readings(readings).encode()})
    if name in ("coco", "yolo", "voc", "nih", "vinbigdata"):
        write = {
            "coco": coco.write, "yolo": yolo.write, "voc": pascal_voc.write, "nih": tables.write_nih,
            "vinbigdata": tables.write_vinbigdata,
        }[name]  # fmt: skip
        return ExportedFiles(write(readings, facts), tuple(_list_losses(name, readings, facts)))
    if name == "slicer":
        files = {
            f"{reading.image.id}/{folder_of(reading.reader.id)}.mrk.json": slicer_markups.write(
                reading, facts[reading.image.id]
            )
            for reading in readings
        }
        return ExportedFiles(files)
    if name != "dicom":
        raise RefusedError(f"there is no format {name!r} to export to; there are {', '.join(EXPORTS)}.")
    files, notes = {}, []
    for reading in readings:
        if not headers.get(reading.image.id):
            notes.append(f"{reading.image.id} is no DICOM, and a report belongs to a study. It is left out.")
        elif not reading.boxes:
            notes.append(f"{reading.image.id}: a reading without boxes has no report, and is left out.")
        else:
            path = f"{reading.image.id}/{folder_of(reading.reader.id)}.dcm"
            try:
                files[path] = dicom_sr.write(reading, headers[reading.image.id])
            except (InputError, OutputError) as error:
                notes.append(f"{reading.image.id}: a reading cannot be written as DICOM, and is left out. {error}")
    if not files:
        raise RefusedError(" ".join(["there is nothing to write as DICOM.", *notes]))
    return ExportedFiles(files, tuple(notes))


def read(
    name: str,
    content: bytes,
    names: ImageNames,
    *,
    reader: str,
    image: ImageFacts | None = None,
    headers: Sequence[Dataset] = (),
) -> ImportedReadings:
    """Read boxes of a format.

    Args:
        name: one of `IMPORTS`.
        content: the file; a zip of files for "yolo".
        names: images of this server.
        reader: reader of boxes in formats that name none.
        image, headers: image that the boxes were drawn on, for "slicer" and "dicom".

    Raises:
        RefusedError: an unknown format, or no image where one must be named.
        BoxError, InputError: a file that cannot be read, or a box that does not lie in its image. Nothing is read then.
    """
    if name not in IMPORTS:
        raise RefusedError(f"there is no format {name!r} to import from; there are {', '.join(IMPORTS)}.")
    if name == "json":
        return _read_json(content, names)
    if name == "coco":
        return coco.read(content, names, reader)
    if name == "nih":
        return tables.read_nih(content, names, reader)
    if name == "lidc":
        return lidc.read(content, names, reader)
    if name == "yolo":
        return yolo.read(_unzip(content), names, reader)
    if image is None:
        raise RefusedError(f"a file of the format {name} does not name its image. Say which with image=NAME.")
    if name == "slicer":
        return slicer_markups.read(content, image, names, reader)
    if not headers:
        raise RefusedError("the image is no DICOM, so no report can be of it.")
    return dicom_sr.read(content, image, headers, names, reader)


def pseudonym(reader: str, secret: str) -> str:
    """Return the pseudonym of a reader: the same for a server, and not to be guessed without its secret."""
    return f"reader-{hashlib.sha256(f'{secret} {reader}'.encode()).hexdigest()[:10]}"


def _read_json(content: bytes, names: ImageNames) -> ImportedReadings:
    imported = ImportedReadings()
    for reading in parse_readings(content.decode("utf-8", "replace")):
        match = names.find(reading.image.id) or names.find(reading.image.series_instance_uid)
        if match is None:
            imported.unknown_images.append(reading.image.id)
            continue
        boxes = tuple(known_finding(match[0].placed(box), imported.unknown_findings) for box in reading.boxes)
        imported.readings.append(replace(reading, image=replace(reading.image, id=match[0].identity.id), boxes=boxes))
    return imported


def _unzip(content: bytes) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = [member for member in archive.infolist() if not member.filename.endswith("/")]
            if len(members) > MOST_FILES or sum(member.file_size for member in members) > LARGEST_UNZIPPED:
                raise BoxError("the zip holds too much. Send it in parts.")
            return {member.filename: archive.read(member) for member in members}
    except BoxError:
        raise
    except ZIP_ERRORS as error:
        raise BoxError("it is no zip that can be read, expected one with classes.txt and label files.") from error


def _list_losses(name: str, readings: Sequence[Reading], facts: Mapping[str, ImageFacts]) -> list[str]:
    """Return which statements "no finding" a format cannot hold."""
    silent = {
        "coco": (), "vinbigdata": (), "nih": readings,
        "yolo": [each for each in readings if facts[each.image.id].slices > 1],
        "voc": [each for each in readings if facts[each.image.id].slices > 1],
    }[name]  # fmt: skip
    count = sum(not reading.boxes for reading in silent)
    return [f"{count} readings without boxes have no place in this format."] if count else []
