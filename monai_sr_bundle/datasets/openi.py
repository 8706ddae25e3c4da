"""Open-i, Indiana University: 7,470 frontal and lateral radiographs with 3,955 reports.

Demner-Fushman et al., "Preparing a collection of radiology examinations for distribution and retrieval", JAMIA 23(2),
2016, https://doi.org/10.1093/jamia/ocv080. See docs/data/openi.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from monai_sr_bundle.datasets.item import Item, Scan, Skipped
from monai_sr_bundle.datasets.make_manifest import assign_split
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.table import read_table

LICENCE = "CC BY-NC-ND 4.0 (Open-i, Indiana University)"

# "CXR1_1_IM-0001-3001" in the reports is "1_IM-0001-3001.dcm.png" in the tables.
_IMAGE_NAME = re.compile(r"^(?:CXR)?(?P<uid>\d+)_(?:\d+_)?(?P<image>IM-[\d-]+)")


@dataclass(frozen=True)
class _Report:
    uid: str
    labels: tuple[str, ...]
    view: str = ""


def scan(input_dir: Path) -> Scan:
    """Find the pictures and the report of each; the report's number is used as the patient.

    Args:
        input_dir: folder with PNG files at any depth, and `*.xml` reports (`ecgen-radiology/`), or
            `indiana_reports.csv` with `indiana_projections.csv`, or both; only the tables distinguish frontal from
            lateral.

    Raises:
        InputError: neither reports nor tables, a column missing.
    """
    skipped: list[Skipped] = []
    reports = _read_xml_reports(input_dir, skipped)
    projections = sorted(input_dir.rglob("indiana_projections.csv"))
    if not reports and not projections:
        raise InputError(
            f"{input_dir}: holds neither XML reports with images nor indiana_projections.csv. "
            "Give the folder that holds the pictures and the reports."
        )
    for table in projections:
        reports |= _read_tables(table, reports)
    items, used_keys = [], set()
    for path in sorted(input_dir.rglob("*.png")):
        relative_path = path.relative_to(input_dir).as_posix()
        key = _image_key(path.name)
        if key in used_keys:
            skipped.append(Skipped(relative_path, "this image was found before under another name"))
        elif key not in reports:
            skipped.append(Skipped(relative_path, "no report names it"))
        else:
            report = reports[key]
            patient = f"openi-{report.uid}"
            items.append(
                Item(
                    name=key,
                    files=(path,),
                    kind="cxr",
                    patient_id=patient,
                    split=assign_split(patient),
                    licence=LICENCE,
                    shown_path=relative_path,
                    view=report.view,
                    labels=report.labels,
                )
            )
        used_keys.add(key)
    absent = len(reports.keys() - used_keys)
    warnings = [f"{absent} of {len(reports)} pictures named in reports are not in {input_dir}."] if absent else []
    if any(not item.view for item in items):
        warnings.append(
            "The XML reports do not state whether an image is frontal or lateral; add indiana_projections.csv for that."
        )
    return Scan(items, skipped, warnings)


def _read_xml_reports(input_dir: Path, skipped: list[Skipped]) -> dict[str, _Report]:
    reports: dict[str, _Report] = {}
    for path in sorted(input_dir.rglob("*.xml")):
        relative_path = path.relative_to(input_dir).as_posix()
        try:
            root = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, OSError) as error:
            skipped.append(Skipped(relative_path, f"broken report: {error}"))
            continue
        uid = root.find(".//uId")
        if uid is None or not uid.get("id"):
            skipped.append(Skipped(relative_path, "a report without uId"))
            continue
        labels = _strip_qualifiers(major.text or "" for major in root.iterfind(".//MeSH/major"))
        for image in root.iterfind(".//parentImage"):
            reports[_image_key(image.get("id", ""))] = _Report(uid.get("id", "").removeprefix("CXR"), labels)
    return reports


def _read_tables(projections: Path, xml_reports: dict[str, _Report]) -> dict[str, _Report]:
    table = projections.with_name("indiana_reports.csv")
    labels = {
        cells["uid"]: _strip_qualifiers((cells.get("Problems") or cells["MeSH"]).split(";"))
        for _, cells in (read_table(table, ("uid", "MeSH")) if table.exists() else ())
    }
    reports = {}
    for _, cells in read_table(projections, ("uid", "filename", "projection")):
        key, uid = _image_key(cells["filename"]), cells["uid"]
        from_xml = xml_reports[key].labels if key in xml_reports else ()
        reports[key] = _Report(uid, labels.get(uid, from_xml), cells["projection"].lower())
    return reports


def _image_key(name: str) -> str:
    match = _IMAGE_NAME.match(name)
    return f"{match['uid']}_{match['image']}" if match else name.removesuffix(".png").removesuffix(".dcm")


def _strip_qualifiers(terms: Iterable[str]) -> tuple[str, ...]:
    """Return MeSH terms without their qualifiers: "Cardiomegaly/borderline" is about Cardiomegaly."""
    heads = (term.split("/")[0].strip().replace("|", " ") for term in terms)
    return tuple(dict.fromkeys(head for head in heads if head))
