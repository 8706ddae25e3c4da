"""Every reader, called below the boundary that a batch has around each image, and what counts as a failure of it."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.errors import InternalError, SuperResolutionError
from monai_sr_bundle.images import files
from monai_sr_bundle.images.dicom_file import derivation, series_key
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.unit import check_pixels, from_stored, to_stored, value_window
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.shipped_bundles import find_bundle

from tests.fuzz import label_requests, seeds
from tests.images.dicom_files import enlarged, provenance

FAILURES = Path(__file__).resolve().parents[2] / "build" / "fuzz"
"""Folder of the cases that failed, a zip each, named after the error; one with a number ended the process."""
LONGEST_MESSAGE = 1200
"""Characters of a message: its own words, and up to 200 of each value that it quotes."""
HANG_SECONDS = 10.0
"""Seconds of processor time that one case may take."""
MEMORY_BYTES = 1024**3
"""Memory that one case may add to its process."""


@dataclass(frozen=True)
class Reader:
    """A reader and the valid files that its cases begin with.

    Attributes:
        seeds: function that makes the valid files.
        read: reads the files of a case from their folder.
        named: a message must name a file of the case; not so where the user gave no file.
    """

    seeds: Callable[[], tuple[seeds.Files, ...]]
    read: Callable[[Path], None]
    named: bool = True


def run_case(name: str, case: seeds.Files) -> str:
    """Read the files of a case, which stay in `FAILURES` if it fails or ends the process.

    Returns:
        "read" or "refused".

    Raises:
        AssertionError: it was refused by a message that is not one line, is long, or names no file.
        pytest.fail.Exception: it takes too long.
        Exception: an error that the reader does not turn into one of ours, as MemoryError.
    """
    case_file = FAILURES / name / f"{os.getpid()}.zip"
    case_file.parent.mkdir(parents=True, exist_ok=True)
    case_file.write_bytes(seeds.zip_files(case))
    try:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            seeds.write_files(case, Path(folder) / "case")
            outcome = _read(READERS[name], Path(folder) / "case")
    except (Exception, pytest.fail.Exception) as error:
        case_file.replace(case_file.with_stem(type(error).__name__))
        raise
    case_file.unlink()
    return outcome


def _read(reader: Reader, folder: Path) -> str:
    try:
        with _limits():
            reader.read(folder)
    except InternalError:
        raise
    except SuperResolutionError as error:
        message = str(error)
        assert len(message) <= LONGEST_MESSAGE, f"message of {len(message)} characters"
        assert not re.search(r"[\x00-\x1f\x7f]", message), (
            f"message with line breaks or control characters: {message!r}"
        )
        files_there = list(folder.rglob("*"))
        names = {"out.dcm", *(path.name for path in files_there)}
        names |= {f"{path.stem}_sr{path.suffix}" for path in files_there}  # of a result that its format cannot hold
        assert not reader.named or any(name in message for name in names), f"message names no file: {message}"
        return "refused"
    return "read"


@contextmanager
def _limits() -> Iterator[None]:
    """End a case that takes too long, and refuse it more memory than it may take."""
    if sys.platform != "linux":
        yield
        return
    import resource

    def stop(*_: object) -> None:
        pytest.fail(f"takes more than {HANG_SECONDS:g} s")  # which no reader catches

    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + MEMORY_BYTES, limits[1]))
    signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, HANG_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        resource.setrlimit(resource.RLIMIT_AS, limits)


def _enlarge(image: Image) -> Image:
    """Check, convert and enlarge an image as an engine does, with every sample repeated in place of a network."""
    check_pixels(image)
    window = value_window(image, image.modality, (-1024, 3071) if image.modality == "CT" else (0, 255))
    for one_slice in image.pixels[:1]:
        with np.errstate(all="raise", under="ignore"):
            to_stored(image, from_stored(image, one_slice, window), window)
    return enlarged(image, (1, 2, 2))


def _read_and_write(path: Path) -> None:
    """Find, read and write the images at a path, with the suffix of the source."""
    unreadable: list[files.UnreadableFile] = []
    with files.discover([path], unreadable) as sources:
        for file in unreadable:
            raise file.error
        targets = files.output_paths(sources, f"{path.parent / 'results'}/")
        for source, target in zip(sources, targets, strict=True):
            image = files.read(source)
            if image.pixels.size > 100_000_000:
                continue  # an honest header; the pixels are there
            files.write(_enlarge(image), provenance(scale_zyx=(1, 2, 2)), target)


def read_dicom(folder: Path) -> None:
    path = folder / "x.dcm"
    try:
        series_key(path)
        derivation(path)
    except InternalError:
        raise
    except SuperResolutionError:
        pass  # reading says it again
    _read_and_write(path)


def read_one_file(folder: Path) -> None:
    (path,) = folder.iterdir()
    _read_and_write(path)


def read_boxes(folder: Path) -> None:
    from monai_sr_bundle.boxes.box_files import boxes_to_dicom

    (table,) = (path for path in folder.iterdir() if path.name != seeds.IMAGE)
    boxes_to_dicom(folder / seeds.IMAGE, table, folder / "out.dcm")


def read_report(folder: Path) -> None:
    from monai_sr_bundle.boxes.box_files import boxes_from_dicom
    from monai_sr_bundle.boxes.dicom_report_read import read_report

    read_report(folder / "x.dcm")
    image = folder / seeds.IMAGE
    boxes_from_dicom(folder / "x.dcm", folder / "boxes.json", image=image if image.exists() else None)


def read_calibration(folder: Path) -> None:
    from monai_sr_bundle.uncertainty.calibration import read_calibration

    bundle = find_bundle(seeds.CALIBRATED)
    calibration = read_calibration(folder / "calibration.json", bundle)
    for entry in calibration.entries:
        calibration.find(entry.sampling, entry.scale, entry.strength)
        calibration.guaranteed_percent(entry)


def read_bundle(folder: Path) -> None:
    from monai_sr_bundle.backends.torch_backend import build_network
    from monai_sr_bundle.images.input_checks import compare_input, describe_differences, describe_outside

    bundle = open_bundle(folder / "b")
    provenance_of = bundle.family.resolve(SamplerOptions())
    bundle.provenance(provenance_of, weights_sha256="", backend="onnx", device="cpu")
    for scale in bundle.scales:
        bundle.at_scale(scale)
    measured = {"sharpness_db": -20.0, "noise_percent": 1.0, "contrast_percent": 50.0, "slice_spacing_mm": 1.0}
    describe_differences(compare_input(measured, bundle.metadata.get("input_range") or {}))
    describe_outside(measured, bundle.metadata.get("input_limits") or {})
    for name in bundle.metadata["weights_sha256"]:
        try:
            bundle.weights(name)
        except InternalError:
            raise
        except SuperResolutionError:
            pass  # the weights of a case are missing
    build_network(bundle)


def read_manifest(folder: Path) -> None:
    from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest

    read_manifest(folder)
    read_boxes(folder)


@cache
def _worker() -> tuple[Any, io.StringIO]:
    from monai_sr_bundle.engine.estimate import Speed
    from monai_sr_bundle.worker.messages import Events
    from monai_sr_bundle.worker.server import Worker

    logging.getLogger("monai_sr_bundle.worker").setLevel(logging.CRITICAL)
    stream = io.StringIO()
    return Worker(Events(stream), "onnx", "cpu", Speed(lambda *_: 1.0, lambda *_: 0.0)), stream


def read_request(folder: Path) -> None:
    """Answer a line of a viewer; its answer "internal" is an uncaught error."""
    worker, stream = _worker()
    line = (folder / "request.json").read_bytes().replace(b"{folder}", str(folder).encode()).replace(b"\n", b" ")
    stream.seek(0)
    stream.truncate()
    worker.serve(io.BytesIO(line + b"\n"))
    for answer in map(json.loads, stream.getvalue().splitlines()):
        if answer.get("kind") == "internal":
            raise AssertionError(answer["message"])
        if "kind" in answer:
            raise SuperResolutionError(answer["message"])


def answer_request(folder: Path) -> None:
    """Answer a request to the server of MONAI Label; its answer 500 is an uncaught error."""
    from tests.fuzz.label_server import answer

    status, text = answer(folder)
    if status >= 500 and status != 503:  # so many images wait to be enlarged that this server takes no more
        raise AssertionError(f"{status} {text}")
    if status >= 400:
        raise SuperResolutionError(text)


READERS = {
    "dicom": Reader(seeds.dicom, read_dicom),
    "series": Reader(seeds.series, _read_and_write),
    "zip": Reader(seeds.zips, read_one_file),
    "nifti": Reader(seeds.nifti, read_one_file),
    "picture": Reader(seeds.pictures, read_one_file),
    "boxes": Reader(seeds.boxes, read_boxes),
    "report": Reader(seeds.reports, read_report),
    "calibration": Reader(seeds.calibrations, read_calibration),
    "bundle": Reader(seeds.bundles, read_bundle),
    "manifest": Reader(seeds.manifests, read_manifest, named=False),
    "request": Reader(seeds.requests, read_request, named=False),
    "label": Reader(label_requests.seeds, answer_request, named=False),
}
