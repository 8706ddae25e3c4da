"""Make a manifest: assign patients to splits, and write the rows of images and boxes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets.manifest import BOX_COLUMNS, Kind, Record, read_manifest, set_folders
from monai_sr_bundle.errors import OutputError
from monai_sr_bundle.images.staging import as_output_error, staged
from monai_sr_bundle.images.working_folders import remove_abandoned
from monai_sr_bundle.table import format_csv


def write_manifest(records: Iterable[Record], out: Path) -> Path:
    """Write `manifest.csv` into the folder `out`, without empty columns; the records' files lie inside it.

    Returns:
        Path of the manifest.

    Raises:
        OutputError: another manifest exists there, or the folder cannot be written.
    """
    rows = [record_cells(record, out) for record in records]
    columns = dict.fromkeys(name for row in rows for name, text in row.items() if text)
    write_once(out / "manifest.csv", format_csv(columns, rows))
    return out / "manifest.csv"


def write_boxes(boxes: Mapping[Path, list[Box]], out: Path) -> None:
    """Write `boxes.csv` into the folder `out`, next to its manifest; coordinates to a hundredth of a pixel.

    Raises:
        OutputError: other boxes exist there, or the folder cannot be written.
    """
    rows = [
        {
            "image": file.relative_to(out).as_posix(),
            "finding": box.finding,
            **{name: f"{getattr(box, name):.2f}" for name in BOX_COLUMNS[2:]},
            "slice_index": "" if box.slice_index is None else str(box.slice_index),
            "reader": box.reader,
        }
        for file, image_boxes in boxes.items()
        for box in image_boxes
    ]
    optional = [name for name in ("slice_index", "reader") if any(row[name] for row in rows)]
    write_once(out / "boxes.csv", format_csv((*BOX_COLUMNS, *optional), rows))


def assign_split(patient_id: str, *, salt: str = "monai-sr-v1", val: float = 0.1, test: float = 0.1) -> str:
    """Return the split of a patient, which depends on the name alone: it is the same on every machine.

    The first 8 bytes of SHA-256 of ``salt:patient_id``, read as a big-endian fraction of 2^64, give a number in
    [0, 1): below `test` is "test", below `test + val` is "val", otherwise "train".
    """
    digest = hashlib.sha256(f"{salt}:{patient_id}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    return "test" if position < test else "val" if position < test + val else "train"


def record_cells(record: Record, out: Path) -> dict[str, str]:
    """Return the cells of a record's row by column, with `file` relative to the folder `out`."""
    return {
        "file": record.file.relative_to(out).as_posix(),
        "set": record.set,
        "split": record.split,
        "source_path": record.source_path,
        "license": record.licence,
        "patient_id": record.patient_id,
        "view": record.view,
        "width": str(record.width or ""),
        "height": str(record.height or ""),
        "mm_per_pixel": f"{record.mm_per_pixel:.6f}" if record.mm_per_pixel else "",
        "shape_xyz": "x".join(map(str, record.shape_xyz or ())),
        "spacing_mm": "x".join(f"{value:.6g}" for value in record.spacing_xyz or ()),
        "kernel": record.kernel,
        **record.others,
        "sha256": record.sha256 or "",
    }


def manifest_sha256(
    data_dir: Path,
    *,
    kind: Kind | None = None,
    split: str | None = None,
    sets: Collection[str] | None = None,
) -> str:
    """Return a fingerprint of the selected images for model cards, independent of folder and order of rows.

    It covers kind, split, patient, file name inside its set and the file's recorded SHA-256 (size, spacing and source
    if none is recorded), not the licence, labels or notes. Arguments and errors are those of `read_manifest`.
    """
    folders = set_folders(data_dir, sets)
    rows = []
    for record in read_manifest(data_dir, kind=kind, split=split, sets=sets):
        folder = next(folder for folder in folders if record.file.is_relative_to(folder))
        content = [record.sha256] if record.sha256 else [record.shape_xyz, record.spacing_xyz, record.source_path]
        name = record.file.relative_to(folder).as_posix()
        rows.append(json.dumps([record.kind, record.split, record.patient_id, name, content]))
    return hashlib.sha256("\n".join(sorted(rows)).encode()).hexdigest()


def write_once(out: Path, data: bytes) -> None:
    """Write a file completely or not at all; do nothing if it exists with the same content.

    Raises:
        OutputError: it exists with other content, or cannot be written; see `staged`.
    """
    with as_output_error(out, len(data)):
        if out.exists():
            remove_abandoned(out.parent)  # of a process that was killed just after it had moved the file here
            if out.read_bytes() == data:
                return
            raise OutputError(
                f"{out}: exists with other content and is never overwritten. Move it away, or choose another folder."
            )
    with staged(out, overwrite=False, needed_bytes=len(data)) as temporary:
        temporary.write_bytes(data)
