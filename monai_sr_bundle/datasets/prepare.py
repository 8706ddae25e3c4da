"""Convert any source to 8-bit grey PNG radiographs and int16 NIfTI volumes in HU, with a manifest and splits.

The prepared folder:

- `images/`: the files, lossless, each written in one step;
- `manifest.csv`, `boxes.csv` (if the source has boxes): see `manifest.py`;
- `skipped.csv` (if any file was skipped): every file left out, and the reason;
- `prepare.jsonl`: the journal from which an interrupted run continues; safe to delete once `manifest.csv` exists.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.datasets import ct_folder, folder, nih, openi, vindr
from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.make_manifest import record_cells, write_boxes, write_manifest, write_once
from monai_sr_bundle.datasets.manifest import Record, check_patients, read_manifest, record_from_cells
from monai_sr_bundle.datasets.radiograph import encode_png, read_radiograph, reduce_size
from monai_sr_bundle.datasets.volume import encode_nifti, read_volume
from monai_sr_bundle.errors import InputError, OutputError
from monai_sr_bundle.images.working_folders import remove_abandoned
from monai_sr_bundle.table import format_csv, read_table

logger = logging.getLogger(__name__)

SOURCES: dict[str, Callable[..., Scan]] = {
    "nih": nih.scan,
    "vindr": vindr.scan,
    "openi": openi.scan,
    "ct": ct_folder.scan,
    "folder": folder.scan,
}
"""Sources that `monai-sr prepare SOURCE` accepts, with the function that scans each."""

_OPTIONS = {source: set(inspect.signature(scan).parameters) - {"input_dir"} for source, scan in SOURCES.items()}
_JOURNAL = "prepare.jsonl"


@dataclasses.dataclass(frozen=True)
class _Prepared:
    """A finished item: its record and boxes, or the reason why the item or some of its boxes were skipped."""

    name: str
    record: Record | None
    boxes: tuple[Box, ...] = ()
    skipped: tuple[Skipped, ...] = ()


def prepare(
    source: str,
    input_dir: Path,
    out_dir: Path,
    *,
    long_side: int = 512,
    workers: int = 1,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    official_split: bool = False,
    patient_from: str | None = None,
    min_slices: int | None = None,
) -> Path:
    """Prepare a set for training and testing, continuing an interrupted run.

    Args:
        source: one of `SOURCES`.
        input_dir: folder of the set as published, see docs/data; it is never changed.
        out_dir: new folder, or the folder of the same call that was interrupted.
        long_side: longest side of the prepared radiographs in pixels; 0 keeps their size. Default 512.
        workers: number of images prepared at once. Default 1.
        limit: number of images to prepare, for a trial. Default: all.
        progress: function called with the number of finished images and of all images.
        official_split: keep the publisher's test split ("nih", "vindr").
        patient_from: regular expression that finds the patient in a file's path ("folder").
        min_slices: fewest slices of a CT series that is not skipped ("ct", "folder").

    Returns:
        Path of the manifest; `summary` describes the prepared images.

    Raises:
        InputError: an unknown source or option, nothing to prepare, every image unreadable, a patient in two splits.
        OutputError: `out_dir` holds other files, was begun with other settings, or cannot be written.
    """
    given = {"official_split": official_split or None, "patient_from": patient_from, "min_slices": min_slices}
    options = {name: value for name, value in given.items() if value is not None}
    input_dir, out_dir = input_dir.expanduser().resolve(), out_dir.expanduser().resolve()
    _check_arguments(source, input_dir, out_dir, long_side, workers, limit, options)

    scan = SOURCES[source](input_dir, **options)
    items = list(scan.items)[:limit]
    if not items:
        raise InputError(
            f"{input_dir}: nothing to prepare as {source!r}{_describe_skipped(scan.skipped)}. "
            "See docs/data for the layout."
        )
    check_patients(((item.patient_id, item.split) for item in items), input_dir)
    for warning in scan.warnings:
        logger.warning("%s", warning)

    plan: dict[str, Any] = {
        "version": 1,
        "source": source,
        "long_side": long_side,
        "images or options": _plan_sha256(items, scan, input_dir),
    }
    done = _open_journal(out_dir, plan)
    todo = [item for item in items if item.name not in done]
    if progress:
        progress(len(items) - len(todo), len(items))
    with closing(_convert_all(todo, source, out_dir, long_side, workers)) as finished:
        for result in finished:
            _append_line(out_dir / _JOURNAL, json.dumps(_to_json(result, out_dir)))
            done[result.name] = result
            if progress:
                progress(len(done), len(items))

    results = [done[item.name] for item in items]
    skipped = [*scan.skipped, *(skip for result in results for skip in result.skipped)]
    records = [result.record for result in results if result.record]
    if not records:
        (out_dir / _JOURNAL).unlink()
        if not any(out_dir.iterdir()):
            out_dir.rmdir()
        raise InputError(f"{input_dir}: none of {len(items)} images can be prepared{_describe_skipped(skipped)}.")
    for first, other in _find_copies(records):
        logger.warning(
            "THE SAME IMAGE IN TWO SPLITS: %s (%s) and %s (%s) are equal, but of two patients, so a training sees what "
            "it is tested on. Take one of them out of the folder, or give both one patient.",
            *(word for record in (first, other) for word in (record.source_path, record.split)),
        )
    boxes = {result.record.file: list(result.boxes) for result in results if result.record and result.boxes}
    if boxes:
        write_boxes(boxes, out_dir)
    if skipped:
        rows = ({"file": skip.shown_path, "reason": skip.reason} for skip in skipped)
        write_once(out_dir / "skipped.csv", format_csv(("file", "reason"), rows))
    manifest = write_manifest(records, out_dir)
    logger.log(logging.WARNING if skipped else logging.INFO, "%s", summary(out_dir))
    return manifest


def summary(out_dir: Path) -> str:
    """Describe a prepared folder in one line: numbers of images, patients, splits and skipped files.

    Raises:
        InputError: the folder holds no manifest.
    """
    records = read_manifest(out_dir)
    splits = Counter(record.split for record in records)
    parts = ", ".join(f"{split} {splits[split]}" for split in ("train", "val", "test"))
    line = f"{len(records)} images of {len({record.patient_id for record in records})} patients ({parts})"
    skipped = out_dir / "skipped.csv"
    count = len(read_table(skipped)) if skipped.exists() else 0
    return f"{line}; {count} skipped, see {skipped}" if count else f"{line}; none skipped"


def _find_copies(records: Sequence[Record]) -> Iterator[tuple[Record, Record]]:
    """Yield prepared images with the same content in two splits, where one patient has two names."""
    by_content: dict[str | None, Record] = {}
    for record in records:
        first = by_content.setdefault(record.sha256, record)
        if first.split != record.split:
            yield first, record


def _check_arguments(
    source: str,
    input_dir: Path,
    out_dir: Path,
    long_side: int,
    workers: int,
    limit: int | None,
    options: dict[str, Any],
) -> None:
    if source not in SOURCES:
        raise InputError(f"source {source!r} is unknown, expected one of {', '.join(SOURCES)}.")
    for name in options.keys() - _OPTIONS[source]:
        usable = ", ".join(other for other in SOURCES if name in _OPTIONS[other])
        raise InputError(f"{name} is an option of {usable}, not of {source}. Leave it out.")
    for name, value, least in (("long_side", long_side, 0), ("workers", workers, 1), ("limit", limit, 1)):
        if value is not None and value < least:
            raise InputError(f"{name} is {value}, expected {least} or more.")
    if not input_dir.is_dir():
        raise InputError(f"{input_dir}: is no folder. Give the folder that holds the set.")
    if out_dir.is_relative_to(input_dir):
        raise OutputError(f"{out_dir}: lies in the input folder, which is never changed. Choose a folder outside.")


def _plan_sha256(items: list[Item], scan: Scan, input_dir: Path) -> str:
    """Return a fingerprint of everything that could change the result, except file content of the same size."""
    digest = hashlib.sha256()
    for item in items:
        cells = dataclasses.asdict(item)
        cells["files"] = [(path.relative_to(input_dir).as_posix(), path.stat().st_size) for path in item.files]
        digest.update(json.dumps(cells, sort_keys=True).encode())
    digest.update(json.dumps([dataclasses.astuple(skip) for skip in scan.skipped]).encode())
    return digest.hexdigest()


def _open_journal(out_dir: Path, plan: dict[str, Any]) -> dict[str, _Prepared]:
    """Return the finished items of an earlier run, with their files checked; begin a journal in a new folder."""
    journal = out_dir / _JOURNAL
    remove_abandoned(out_dir)
    if not journal.exists():
        if out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir())):
            raise OutputError(
                f"{out_dir}: exists, and prepare did not begin it (no {_JOURNAL}). Nothing is ever overwritten: "
                "choose a new folder."
            )
        write_once(journal, (json.dumps(plan) + "\n").encode())
        return {}
    # A line without its end was cut by the interruption.
    complete = journal.read_bytes().rpartition(b"\n")[0]
    try:
        begun_plan, *entries = (json.loads(line) for line in complete.split(b"\n"))
        results = [_from_json(entry, out_dir, journal, line) for line, entry in enumerate(entries, 2)]
    except (ValueError, KeyError, TypeError) as error:
        raise OutputError(
            f"{journal}: is damaged ({error}), so the run cannot continue. Choose a new folder."
        ) from error
    if begun_plan != plan:
        differences = ", ".join(name for name in plan if begun_plan.get(name) != plan[name])
        raise OutputError(f"{out_dir}: was begun with other settings or files ({differences}). Choose a new folder.")
    done = {result.name: result for result in results if result.record is None or result.record.file.exists()}
    for result in done.values():
        if result.record and hashlib.sha256(result.record.file.read_bytes()).hexdigest() != result.record.sha256:
            raise OutputError(
                f"{result.record.file}: was changed after it was prepared. Delete it to prepare it again, "
                "or choose a new folder."
            )
    os.truncate(journal, len(complete) + 1)
    return done


def _append_line(journal: Path, line: str) -> None:
    try:
        with journal.open("a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(f"{journal}: cannot be written ({reason}). Make room and run again.") from error


def _convert_all(
    items: list[Item], source: str, out_dir: Path, long_side: int, workers: int
) -> Generator[_Prepared, None, None]:
    """Convert items in order, at most twice `workers` at once, so that memory does not grow with the set."""
    pool = ThreadPoolExecutor(workers)
    waiting: deque[Future[_Prepared]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_convert, item, source, out_dir, long_side))
            if len(waiting) >= 2 * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _convert(item: Item, source: str, out_dir: Path, long_side: int) -> _Prepared:
    try:
        if item.kind == "cxr":
            return _convert_cxr(item, source, out_dir, long_side)
        return _convert_ct(item, source, out_dir)
    except InputError as error:
        return _Prepared(item.name, None, skipped=(Skipped(item.shown_path, str(error)),))


def _convert_cxr(item: Item, source: str, out_dir: Path, long_side: int) -> _Prepared:
    radiograph = read_radiograph(item.files[0])
    grey = reduce_size(radiograph.grey, long_side)
    height, width = grey.shape
    data = encode_png(grey)
    file = out_dir / "images" / f"{item.name}.png"
    write_once(file, data)

    spacing, spacing_size, spacing_source = radiograph.spacing_xy, radiograph.size_xy, radiograph.spacing_source
    if item.spacing_xy:
        spacing, spacing_size = item.spacing_xy, item.spacing_size_xy or radiograph.size_xy
        spacing_source = "published table"
    boxes, lost = _scale_boxes(item, item.boxes_size_xy or radiograph.size_xy, (width, height))
    record = dataclasses.replace(
        _make_record(item, source, file, data),
        mm_per_pixel=spacing[0] * spacing_size[0] / width if spacing else None,
        width=width,
        height=height,
        others={
            "mm_per_pixel_y": f"{spacing[1] * spacing_size[1] / height:.6f}" if spacing else "",
            "spacing_source": spacing_source if spacing else "",
            "source_width": str(radiograph.size_xy[0]),
            "source_height": str(radiograph.size_xy[1]),
            "labels": "|".join(item.labels),
            "age": item.age,
            "sex": item.sex,
            "note": radiograph.note,
        },
    )
    return _Prepared(item.name, record, boxes, lost)


def _convert_ct(item: Item, source: str, out_dir: Path) -> _Prepared:
    volume = read_volume(item.files)
    data = encode_nifti(volume)
    file = out_dir / "images" / f"{item.name}.nii.gz"
    write_once(file, data)
    x, y, z = volume.hu.shape
    record = dataclasses.replace(
        _make_record(item, source, file, data),
        shape_xyz=(x, y, z),
        spacing_xyz=volume.spacing_xyz,
        kernel=volume.kernel,
        others={
            "hu_min": str(volume.hu.min()),
            "hu_max": str(volume.hu.max()),
            "manufacturer": volume.manufacturer,
        },
    )
    return _Prepared(item.name, record)


def _make_record(item: Item, source: str, file: Path, data: bytes) -> Record:
    return Record(
        file=file,
        kind=item.kind,
        split=item.split,
        patient_id=item.patient_id,
        licence=item.licence,
        view=item.view,
        set=source,
        source_path=item.shown_path,
        sha256=hashlib.sha256(data).hexdigest(),
    )


def _scale_boxes(
    item: Item, size_xy: tuple[int, int], stored_xy: tuple[int, int]
) -> tuple[tuple[Box, ...], tuple[Skipped, ...]]:
    """Scale boxes to pixels of the stored image and clip them to it; report boxes outside it as skipped."""
    scale_x, scale_y = stored_xy[0] / size_xy[0], stored_xy[1] / size_xy[1]
    scaled, skipped = [], []
    for box in item.boxes:
        x_min, x_max = (min(max(value * scale_x, 0.0), stored_xy[0]) for value in (box.x_min, box.x_max))
        y_min, y_max = (min(max(value * scale_y, 0.0), stored_xy[1]) for value in (box.y_min, box.y_max))
        # Boxes are written to a hundredth of a pixel, so they are compared with that precision.
        if round(x_min, 2) < round(x_max, 2) and round(y_min, 2) < round(y_max, 2):
            scaled.append(dataclasses.replace(box, x_min=x_min, y_min=y_min, x_max=x_max, y_max=y_max))
        else:
            edges = f"x {box.x_min:g} to {box.x_max:g}, y {box.y_min:g} to {box.y_max:g}"
            reason = f"box {box.finding!r} ({edges}) is empty or outside the image; the image is kept"
            skipped.append(Skipped(item.shown_path, reason))
    return tuple(scaled), tuple(skipped)


def _to_json(result: _Prepared, out_dir: Path) -> dict[str, Any]:
    return {
        "name": result.name,
        "record": record_cells(result.record, out_dir) if result.record else None,
        "boxes": [dataclasses.asdict(box) for box in result.boxes],
        "skipped": [dataclasses.asdict(skip) for skip in result.skipped],
    }


def _from_json(cells: dict[str, Any], out_dir: Path, journal: Path, line: int) -> _Prepared:
    return _Prepared(
        cells["name"],
        record_from_cells(cells["record"], out_dir, journal, line) if cells["record"] else None,
        tuple(Box(**{**box, "codes": ()}) for box in cells["boxes"]),  # tables hold no codes
        tuple(Skipped(**skip) for skip in cells["skipped"]),
    )


def _describe_skipped(skipped: Sequence[Skipped]) -> str:
    first = "; ".join(f"{skip.shown_path}: {skip.reason}" for skip in skipped[:3])
    return f" ({len(skipped)} skipped, first {first})" if first else ""
