"""Boxes from files to files: tables and JSON on one side, DICOM Structured Reports on the other.

A table has the columns of the `boxes.csv` of a data set (docs/data), and `reader`, `certainty`, `sop_instance_uid` and
`tracking_uid`. JSON holds readings (box.py).
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from monai_sr_bundle import __version__
from monai_sr_bundle.boxes.box import Box, BoxError
from monai_sr_bundle.boxes.codes import PRIVATE_NAME, public_codes
from monai_sr_bundle.boxes.dicom_report_read import ReportBoxes, read_report
from monai_sr_bundle.boxes.dicom_report_write import write_report
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, Tool, format_readings, parse_readings
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.dicom_pixels import frame_count
from monai_sr_bundle.images.dicom_read import read_headers
from monai_sr_bundle.images.files import Source, discover, name_zip_in_errors, suffix_of
from monai_sr_bundle.images.staging import require_free, staged
from monai_sr_bundle.table import format_csv, number, read_table
from pydicom.dataset import Dataset

logger = logging.getLogger(__name__)

_EDGES = ("x_min", "y_min", "x_max", "y_max")
_COLUMNS = ("image", "finding", *_EDGES, "slice_index", "reader", "certainty", "sop_instance_uid", "tracking_uid")
_REQUIRED = ("finding", *_EDGES)


@dataclass(frozen=True)
class ListedBox:
    """A box of a file.

    Attributes:
        box: the box.
        image: names that the file gives its image; none fits every image.
        label: position in the file, for messages: "boxes.csv, line 3".
        submitted: the box stands in a submitted reading.
    """

    box: Box
    image: tuple[str, ...]
    label: str
    submitted: bool = False


def boxes_to_dicom(
    image: Path,
    table: Path,
    out: Path,
    *,
    rows_of: str | None = None,
    result: Path | None = None,
    in_patient: bool = True,
    overwrite: bool = False,
) -> int:
    """Write the boxes of an image, from a table or JSON, as a Structured Report.

    Args:
        image: a DICOM file, series folder or zip.
        table: .csv or .json.
        out: the file to write.
        rows_of: name of the image in the table; by default the name of `image`, its file or its UID. Boxes without
            an image are always taken.
        result: the enhanced image, whose figures are in `after`.
        in_patient: give corners in millimetres where slices lie in the patient.
        overwrite: replace an older report.

    Returns:
        The number of boxes written. The report is COMPLETE where all of them come from submitted readings.

    Raises:
        InputError: the image is no DICOM or more than one; the table cannot be used, or has no box of the image; what
            `write_report` refuses.
        OutputError: errors of `write_report` and `staged`.
    """
    _require_apart(out, image, table, result, overwrite=overwrite)
    listed = _read_boxes(table)
    with _open_headers(image) as (source, sources):
        assert source is not None, "an image is given"
        selected = _select_boxes(listed, _image_names(source, sources), table, image, rows_of)
        with _open_headers(result) as (_, results), staged(out, overwrite=overwrite) as temporary:
            write_report(
                [each.box for each in selected],
                sources,
                temporary,
                result=results,
                in_patient=in_patient,
                complete=all(each.submitted for each in selected),
                labels=[each.label for each in selected],
            )
    return len(selected)


def boxes_from_dicom(report: Path, out: Path, *, image: Path | None = None, overwrite: bool = False) -> list[Box]:
    """Write the boxes of a Structured Report as a table or JSON; parts that were not understood are logged.

    Args:
        report: a report by TID 1500 of any producer.
        out: .csv or .json.
        image: the image of the boxes. With it the slices are counted, the boxes checked, and corners in millimetres
            read from any report.
        overwrite: replace an older table.

    Returns:
        The boxes.

    Raises:
        InputError: errors of `read_report`; no file; `image` is no DICOM or more than one; a box that JSON cannot hold.
        OutputError: `out` is neither .csv nor .json; errors of `staged`.
    """
    _require_apart(out, report, image, overwrite=overwrite)
    suffix = out.suffix.lower()
    if suffix not in (".csv", ".json"):
        raise OutputError(f"{out.name}: boxes are written as .csv or .json, not as {out.suffix or 'that'}. Rename it.")
    if not report.is_file():
        raise InputError(f"{report}: is not a file. Check the spelling.")
    with _open_headers(image) as (source, sources):
        content = read_report(report, sources)
        for note in content.notes:
            logger.warning("%s", note)
        try:
            data = (
                _format_boxes(content.boxes, source.name if source else "")
                if suffix == ".csv"
                else format_readings(_to_readings(content, source, sources)).encode()
            )
        except BoxError as error:
            raise InputError(f"{report.name}: cannot be written as JSON: {error} Write a .csv instead.") from error
    with staged(out, overwrite=overwrite, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)
    return list(content.boxes)


def _require_apart(out: Path, *inputs: Path | None, overwrite: bool) -> None:
    if out.resolve() in {path.resolve() for path in inputs if path}:
        raise OutputError(f"{out}: is an input, which is never replaced. Choose another name.")
    require_free(out, overwrite=overwrite)


@contextmanager
def _open_headers(image: Path | None) -> Iterator[tuple[Source | None, list[Dataset]]]:
    """Open the one image at a path with its headers; nothing without a path."""
    if image is None:
        yield None, []
        return
    with discover([image]) as images:
        if len(images) > 1:
            names = ", ".join(source.name for source in images[:3]) + (", ..." if len(images) > 3 else "")
            raise InputError(f"{image}: holds {len(images)} images ({names}), expected one. Pass it alone.")
        (source,) = images
        if source.format != "dicom":
            raise InputError(
                f"{source.path.name}: is {source.format.upper()}, expected DICOM: a report belongs to a study. "
                "Keep the boxes of other images as .csv or .json."
            )
        with name_zip_in_errors(source):
            headers, notes = read_headers(source.files, source.path)
        for note in notes:
            logger.warning("%s: %s", source.path.name, note)
        yield source, headers


def _image_names(source: Source, headers: Sequence[Dataset]) -> set[str]:
    """Return the names that a table may give an image: its file or folder, with or without suffix, or a UID."""
    paths = [source.path, PurePosixPath(source.name), *source.files]
    uids = [str(header.get(keyword)) for header in headers for keyword in ("SOPInstanceUID", "SeriesInstanceUID")]
    return {_stem(path.name) for path in paths} | set(uids)


def _stem(name: str) -> str:
    return name[: len(name) - len(suffix_of(name))]


def _select_boxes(
    listed: Sequence[ListedBox], names: set[str], table: Path, image: Path, rows_of: str | None
) -> list[ListedBox]:
    if rows_of:
        names = {rows_of, _stem(PurePosixPath(rows_of).name)}

    def fits(each: ListedBox) -> bool:
        return not each.image or any(name in names or _stem(PurePosixPath(name).name) in names for name in each.image)

    selected = [each for each in listed if fits(each)]
    if selected:
        return selected
    if not listed:
        raise InputError(f"{table}: holds no box. Draw one first.")
    others = list(dict.fromkeys(each.image[0] for each in listed))
    listing = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    raise InputError(
        f"{table}: has boxes of {listing}, none of {rows_of or image.name}. Say which of them is this image with "
        "--rows-of NAME."
    )


def _read_boxes(table: Path) -> list[ListedBox]:
    parsers: dict[str, Callable[[Path], list[ListedBox]]] = {".csv": _read_csv, ".json": _read_json}
    if table.suffix.lower() not in parsers:
        raise InputError(f"{table.name}: boxes are read from .csv or .json, not from {table.suffix or 'that'}.")
    return parsers[table.suffix.lower()](table)


def _read_csv(table: Path) -> list[ListedBox]:
    listed = []
    for line, cells in read_table(table, _REQUIRED):
        unknown = [name for name in cells if name not in _COLUMNS]
        if unknown:
            raise InputError(
                f"{table}: column {', '.join(unknown)} is not known; the columns are {', '.join(_COLUMNS)}. Rename it, "
                "or take it out."
            )
        label = f"{table.name}, line {line}"
        numbers = {
            name: number(cells[name], path=table, line=line, column=name)
            for name in (*_EDGES, "certainty", "slice_index")
            if name in _EDGES or cells.get(name)
        }
        slice_index = numbers.get("slice_index")
        if slice_index is not None and not slice_index.is_integer():
            raise InputError(f"{label}: slice_index is {slice_index:g}, expected a whole number from 0. Correct it.")
        box = Box(
            cells["finding"],
            numbers["x_min"],
            numbers["y_min"],
            numbers["x_max"],
            numbers["y_max"],
            certainty=numbers.get("certainty"),
            slice_index=None if slice_index is None else int(slice_index),
            reader=cells.get("reader", ""),
            sop_instance_uid=cells.get("sop_instance_uid", ""),
            tracking_uid=cells.get("tracking_uid", ""),
        )
        listed.append(ListedBox(box, (cells["image"],) if cells.get("image") else (), label))
    return listed


def _read_json(table: Path) -> list[ListedBox]:
    try:
        readings = parse_readings(table.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{table}: cannot be read as text ({error}). Copy it again.") from error
    except BoxError as error:
        raise InputError(f"{table}: {error}") from error
    return [
        ListedBox(
            box,
            tuple(filter(None, (reading.image.id, reading.image.series_instance_uid))),
            f"{table.name}, readings[{number}].boxes[{index}]",
            reading.status == "submitted",
        )
        for number, reading in enumerate(readings)
        for index, box in enumerate(reading.boxes)
    ]


def _format_boxes(boxes: Sequence[Box], image: str) -> bytes:
    rows = []
    for box in boxes:
        cells = {name: _format_cell(getattr(box, name)) for name in _COLUMNS[1:]}
        rows.append({"image": image or box.sop_instance_uid, **cells})
    optional = [name for name in _COLUMNS[len(_REQUIRED) + 1 :] if any(row[name] for row in rows)]
    return format_csv(("image", *_REQUIRED, *optional), rows)


def _format_cell(value: float | int | str | None) -> str:
    """Format numbers to a thousandth of a pixel, without zeros at the end."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def _to_readings(report: ReportBoxes, source: Source | None, headers: Sequence[Dataset]) -> list[Reading]:
    """Group the boxes of a report into readings, by image and reader."""
    image = identify_image(source, headers) if source else None
    grouped: dict[tuple[str, str], list[Box]] = {}
    for box in report.boxes:
        series_uid = report.series_uids.get(box.sop_instance_uid, "")
        coded = replace(box, codes=box.codes or public_codes(box.finding))
        grouped.setdefault((series_uid, box.reader), []).append(coded)
    return [
        Reading(
            image or ImageIdentity(series_uid or boxes[0].sop_instance_uid, "", report.study_uid, series_uid),
            Reader(reader),
            tuple(boxes),
            status="submitted" if report.complete else "draft",
            tool=Tool(PRIVATE_NAME, __version__),
        )
        for (series_uid, reader), boxes in grouped.items()
    ]


def identify_image(source: Source, headers: Sequence[Dataset]) -> ImageIdentity:
    """Return the identity of a DICOM image, as it stands in readings.

    Args:
        source: the image.
        headers: its headers, by `read_headers`.
    """
    digests = sorted(hashlib.sha256(file.read_bytes()).hexdigest() for file in source.files)
    combined = hashlib.sha256("".join(f"{digest}\n" for digest in digests).encode()).hexdigest()
    first = headers[0]
    return ImageIdentity(
        source.name,
        digests[0] if len(digests) == 1 else combined,
        study_instance_uid=str(first.get("StudyInstanceUID") or ""),
        series_instance_uid=str(first.get("SeriesInstanceUID") or ""),
        columns=int(first.Columns),
        rows=int(first.Rows),
        slices=max(len(headers), frame_count(first, source.files[0])),
    )
