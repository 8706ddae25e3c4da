"""DICOM Structured Reports by TID 1500, one for each reader and image: `monai_sr_bundle.boxes` writes and reads them.

A rectangle is a closed polyline of five points in pixels, concept (111030, DCM, "Image Region"), on CT slices, too: the
form that OHIF's adapter accepts. It was not seen in OHIF itself.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from monai_sr_bundle.boxes.dicom_report_read import read_report
from monai_sr_bundle.boxes.dicom_report_write import write_report
from monai_sr_bundle.boxes.readings import Reading
from pydicom.dataset import Dataset

from labelling.formats.slices import Collector, ImageFacts, ImageNames, ImportedReadings


def write(reading: Reading, headers: Sequence[Dataset]) -> bytes:
    """Return a report of a reading with at least one box.

    Raises:
        InputError, OutputError: see `write_report`.
    """
    from dataclasses import replace

    boxes = [
        replace(box, reader=reading.reader.id, finding=box.finding or "Finding", before=None, after=None)
        for box in reading.boxes
    ]
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, "report.dcm")
        write_report(boxes, headers, out, in_patient=False, complete=reading.status == "submitted")
        return out.read_bytes()


def read(
    content: bytes, image: ImageFacts, headers: Sequence[Dataset], names: ImageNames, reader: str
) -> ImportedReadings:
    """Read the boxes of one image from a report of any program.

    Raises:
        InputError: see `read_report`.
        BoxError: a box that does not lie in its image.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "report.dcm")
        file.write_bytes(content)
        report = read_report(file, headers)
    collector = Collector(names, reader)
    for box in report.boxes:
        reader_name = box.reader.rstrip("^")  # a Person Name of one part ends in it
        collector.add(image.identity.id, box, reader_name, **({} if report.complete else {"status": "draft"}))
    collector.imported.notes += report.notes
    return collector.finish()


def images_of(report: Dataset) -> list[str]:
    """Return the SOP Instance UIDs of the images in a report's evidence."""
    uids = []
    for keyword in ("CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence"):
        for study in report.get(keyword) or ():
            for series in study.get("ReferencedSeriesSequence") or ():
                uids += [str(image.ReferencedSOPInstanceUID) for image in series.get("ReferencedSOPSequence") or ()]
    return uids
