"""Boxes from files to files: tables and JSON on one side, DICOM Structured Reports on the other.

A table has the columns of the `boxes.csv` of a data set (docs/data), and `reader`, `certainty`, `sop_instance_uid` and
`tracking_uid`. JSON is ``{"boxes": [...]}`` with the fields of `Box`, and `image` as in a table.
"""

from __future__ import annotations

import csv
import io
import json
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

from pydicom.dataset import Dataset

from monai_sr_bundle.datasets.table import number, read_table
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.dicom_boxes import Box, Figures, read_boxes, write_boxes
from monai_sr_bundle.images.dicom_read import read_headers
from monai_sr_bundle.images.files import Source, discover
from monai_sr_bundle.images.staging import require_free, staged

logger = logging.getLogger(__name__)

_CORNERS = ("x_min", "y_min", "x_max", "y_max")
_COLUMNS = ("image", "finding", *_CORNERS, "slice_index", "reader", "certainty", "sop_instance_uid", "tracking_uid")
_FIELDS = ("image", *(field.name for field in fields(Box)))
_NEEDED = ("finding", *_CORNERS)
_SUFFIXES = (".nii.gz", ".nii", ".dcm", ".dicom", ".ima", ".png", ".jpg", ".jpeg", ".tif", ".tiff", ".zip")


@dataclass(frozen=True)
class Listed:
    """A box of a file, the image it names there, and where it stands, for messages."""

    box: Box
    image: str
    where: str


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
        rows_of: take the boxes that name this image in the table; by default those that name `image`, its file or
            UID. Boxes that name none are always taken.
        result: the image super-resolved, which the figures `after` are of.
        in_patient: give corners in millimetres where slices lie in the patient.
        overwrite: replace an older report.

    Returns:
        How many boxes were written.

    Raises:
        InputError: the image is no DICOM or more than one; the table cannot be used, or has no box of the image; what
            `write_boxes` refuses.
        OutputError: as `write_boxes` and `staged` do.
    """
    _require_apart(out, image, table, result, overwrite=overwrite)
    listed = _read_listed(table)
    with _headers(image) as (source, sources):
        chosen = _choose(listed, _names(source, sources), table, image, rows_of)
        with _headers(result) as (_, results), staged(out, overwrite=overwrite) as temporary:
            boxes, where = [each.box for each in chosen], [each.where for each in chosen]
            write_boxes(boxes, sources, temporary, result=results, in_patient=in_patient, where=where)
    return len(chosen)


def boxes_from_dicom(report: Path, out: Path, *, image: Path | None = None, overwrite: bool = False) -> list[Box]:
    """Write the boxes of a Structured Report as a table or JSON; what was not understood is logged.

    Args:
        report: by TID 1500, whoever made it.
        out: .csv or .json.
        image: the image of the boxes. With it the slices are counted, the boxes checked, and corners in millimetres
            read from any report.
        overwrite: replace an older table.

    Returns:
        The boxes.

    Raises:
        InputError: as `read_boxes`; no file; `image` is no DICOM or more than one.
        OutputError: `out` is neither .csv nor .json; as `staged` does.
    """
    _require_apart(out, report, image, overwrite=overwrite)
    if out.suffix.lower() not in _WRITERS:
        raise OutputError(f"{out.name}: boxes are written as .csv or .json, not as {out.suffix or 'that'}. Rename it.")
    if not report.is_file():
        raise InputError(f"{report}: is not a file. Check the spelling.")
    with _headers(image) as (source, sources):
        found = read_boxes(report, sources)
    for note in found.notes:
        logger.warning("%s", note)
    data = _WRITERS[out.suffix.lower()](found.boxes, source.name if source else "")
    with staged(out, overwrite=overwrite, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)
    return list(found.boxes)


def _require_apart(out: Path, *inputs: Path | None, overwrite: bool) -> None:
    if out.resolve() in {path.resolve() for path in inputs if path}:
        raise OutputError(f"{out}: is an input, which is never replaced. Choose another name.")
    require_free(out, overwrite=overwrite)


@contextmanager
def _headers(image: Path | None) -> Iterator[tuple[Source | None, list[Dataset]]]:
    """The one image at a place, and its headers; nothing for no place."""
    if image is None:
        yield None, []
        return
    with discover([image]) as found:
        if len(found) > 1:
            names = ", ".join(source.name for source in found[:3]) + (", ..." if len(found) > 3 else "")
            raise InputError(f"{image}: holds {len(found)} images ({names}), expected one. Pass it alone.")
        (source,) = found
        if source.format != "dicom":
            raise InputError(
                f"{source.path.name}: is {source.format.upper()}, expected DICOM: a report belongs to a study. "
                "Keep the boxes of other images as .csv or .json."
            )
        headers, notes = read_headers(source.files, source.path)
        for note in notes:
            logger.warning("%s: %s", source.path.name, note)
        yield source, headers


def _names(source: Source | None, headers: Sequence[Dataset]) -> set[str]:
    """What a table may call an image: its file or folder, with or without suffix, or a UID."""
    assert source is not None, "an image is given"
    paths = [source.path, PurePosixPath(source.name), *source.files]
    uids = [str(header.get(keyword)) for header in headers for keyword in ("SOPInstanceUID", "SeriesInstanceUID")]
    return {_stem(path.name) for path in paths} | set(uids)


def _stem(name: str) -> str:
    return next((name[: -len(suffix)] for suffix in _SUFFIXES if name.lower().endswith(suffix)), name)


def _choose(listed: Sequence[Listed], names: set[str], table: Path, image: Path, rows_of: str | None) -> list[Listed]:
    if rows_of:
        names = {rows_of, _stem(PurePosixPath(rows_of).name)}

    def fits(each: Listed) -> bool:
        return not each.image or each.image in names or _stem(PurePosixPath(each.image).name) in names

    chosen = [each for each in listed if fits(each)]
    if chosen:
        return chosen
    if not listed:
        raise InputError(f"{table}: holds no box. Draw one first.")
    others = list(dict.fromkeys(each.image for each in listed))
    shown = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if len(others) > 3 else "")
    raise InputError(
        f"{table}: has boxes of {shown}, none of {rows_of or image.name}. Say which of them is this image with "
        "--rows-of NAME."
    )


def _read_listed(table: Path) -> list[Listed]:
    readers: dict[str, Callable[[Path], list[Listed]]] = {".csv": _read_csv, ".json": _read_json}
    if table.suffix.lower() not in readers:
        raise InputError(f"{table.name}: boxes are read from .csv or .json, not from {table.suffix or 'that'}.")
    return readers[table.suffix.lower()](table)


def _read_csv(table: Path) -> list[Listed]:
    found = []
    for line, cells in read_table(table, _NEEDED):
        _require_known(cells, _COLUMNS, f"{table}: column", "columns")
        corners = {name: number(cells[name], path=table, line=line, column=name) for name in _CORNERS}
        values = {name: cells.get(name, "") for name in ("slice_index", "certainty")}
        optional = {
            name: number(text, path=table, line=line, column=name) if text else None for name, text in values.items()
        }
        box = _box(
            {
                "label": cells["finding"],
                **corners,
                **{name: cells.get(name, "") for name in ("reader", "sop_instance_uid", "tracking_uid")},
                **optional,
            },
            where := f"{table.name}, line {line}",
        )
        found.append(Listed(box, cells.get("image", ""), where))
    return found


def _read_json(table: Path) -> list[Listed]:
    try:
        content = json.loads(table.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{table}: cannot be read as JSON ({error}). Copy it again.") from error
    boxes = content.get("boxes") if isinstance(content, dict) else None
    if not isinstance(boxes, list) or not all(isinstance(each, dict) for each in boxes):
        raise InputError(f'{table}: is JSON of another kind, expected {{"boxes": [{{"label": "Nodule", ...}}, ...]}}.')
    found = []
    for index, each in enumerate(boxes, 1):
        where = f"{table.name}, box {index}"
        _require_known(each, _FIELDS, f"{where}: field", "fields")
        missing = [name for name in ("label", *_CORNERS) if name not in each]
        if missing:
            raise InputError(f"{where}: {', '.join(missing)} is missing. Fill it in.")
        values = {name: value for name, value in each.items() if name != "image"}
        found.append(Listed(_box(values, where), str(each.get("image") or ""), where))
    return found


def _require_known(found: Mapping[str, Any], known: Sequence[str], what: str, several: str) -> None:
    unknown = [name for name in found if name not in known]
    if unknown:
        raise InputError(
            f"{what} {', '.join(unknown)} is not known; the {several} are {', '.join(known)}. "
            "Rename it, or take it out."
        )


def _box(values: dict[str, Any], where: str) -> Box:
    """A box of plain values, their types checked; whether it fits its image is for the writer."""
    for name in (*_CORNERS, "certainty", "slice_index"):
        value = values.get(name)
        if value is None and name not in _CORNERS:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise InputError(f"{where}: {name} is {value!r}, expected a number. Correct it.")
        if name == "slice_index":
            if value != int(value):
                raise InputError(f"{where}: slice_index is {value:g}, expected a whole number from 0. Correct it.")
            values[name] = int(value)
    for name in ("label", "reader", "sop_instance_uid", "tracking_uid"):
        if not isinstance(values.get(name) or "", str):
            raise InputError(f"{where}: {name} is {values[name]!r}, expected text. Correct it.")
        values[name] = (values.get(name) or "").strip()
    for name in ("before", "after"):
        figures = values.get(name)
        if figures is None:
            continue
        numbers = figures.values() if isinstance(figures, dict) else []
        names = {field.name for field in fields(Figures)}
        if (
            not isinstance(figures, dict)
            or set(figures) != names
            or not all(isinstance(value, int | float) and math.isfinite(value) for value in numbers)
        ):
            raise InputError(f"{where}: {name} is {figures!r}, expected the numbers mean and standard_deviation.")
        values[name] = Figures(**figures)
    return Box(**values)


def _as_csv(boxes: Sequence[Box], image: str) -> bytes:
    rows = []
    for box in boxes:
        cells = {name: _plain(getattr(box, name)) for name in _COLUMNS if name not in ("image", "finding")}
        rows.append({"image": image or box.sop_instance_uid, "finding": box.label, **cells})
    optional = [name for name in _COLUMNS[len(_NEEDED) + 1 :] if any(row[name] for row in rows)]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["image", *_NEEDED, *optional], extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


def _plain(value: float | int | str | None) -> str:
    """Numbers to a thousandth of a pixel, without zeros at the end."""
    if isinstance(value, float):
        return f"{value:.3f}".rstrip("0").rstrip(".")
    return "" if value is None else str(value)


def _as_json(boxes: Sequence[Box], image: str) -> bytes:
    listed = [{"image": image or box.sop_instance_uid, **_rounded(box)} for box in boxes]
    filled = [{name: value for name, value in each.items() if value not in (None, "")} for each in listed]
    return (json.dumps({"boxes": filled}, indent=2, ensure_ascii=False) + "\n").encode()


def _rounded(box: Box) -> dict[str, Any]:
    corners = {name: round(getattr(box, name), 3) for name in _CORNERS}
    certainty = None if box.certainty is None else round(box.certainty, 6)
    return asdict(replace(box, certainty=certainty, **corners))


_WRITERS: dict[str, Callable[[Sequence[Box], str], bytes]] = {".csv": _as_csv, ".json": _as_json}
