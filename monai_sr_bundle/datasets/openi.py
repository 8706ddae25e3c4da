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
from monai_sr_bundle.datasets.manifest import assign_split
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
    """Find the pictures and the report of each; the report's number stands for the patient.

    Args:
        input_dir: PNG files in any folder, and `*.xml` reports (`ecgen-radiology/`), or `indiana_reports.csv` with
            `indiana_projections.csv`, or both; the tables alone tell frontal from lateral.

    Raises:
        InputError: neither reports nor tables, a column missing.
    """
    skipped: list[Skipped] = []
    reports = _from_xml(input_dir, skipped)
    projections = sorted(input_dir.rglob("indiana_projections.csv"))
    if not reports and not projections:
        raise InputError(
            f"{input_dir}: holds neither XML reports with images nor indiana_projections.csv. "
            "Give the folder that holds the pictures and the reports."
        )
    for table in projections:
        reports |= _from_tables(table, reports)
    items, seen = [], set()
    for path in sorted(input_dir.rglob("*.png")):
        shown = path.relative_to(input_dir).as_posix()
        key = _key(path.name)
        if key in seen:
            skipped.append(Skipped(shown, "this image was found before under another name"))
        elif key not in reports:
            skipped.append(Skipped(shown, "no report names it"))
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
                    shown_path=shown,
                    view=report.view,
                    labels=report.labels,
                )
            )
        seen.add(key)
    absent = len(reports.keys() - seen)
    warnings = [f"{absent} of {len(reports)} pictures named in reports are not in {input_dir}."] if absent else []
    if any(not item.view for item in items):
        warnings.append(
            "The XML reports do not tell frontal from lateral; add indiana_projections.csv to have the view."
        )
    return Scan(items, skipped, warnings)


def _from_xml(input_dir: Path, skipped: list[Skipped]) -> dict[str, _Report]:
    reports: dict[str, _Report] = {}
    for path in sorted(input_dir.rglob("*.xml")):
        shown = path.relative_to(input_dir).as_posix()
        try:
            root = ElementTree.parse(path).getroot()
        except (ElementTree.ParseError, OSError) as error:
            skipped.append(Skipped(shown, f"broken report: {error}"))
            continue
        uid = root.find(".//uId")
        if uid is None or not uid.get("id"):
            skipped.append(Skipped(shown, "a report without uId"))
            continue
        labels = _headings(major.text or "" for major in root.iterfind(".//MeSH/major"))
        for image in root.iterfind(".//parentImage"):
            reports[_key(image.get("id", ""))] = _Report(uid.get("id", "").removeprefix("CXR"), labels)
    return reports


def _from_tables(projections: Path, known: dict[str, _Report]) -> dict[str, _Report]:
    table = projections.with_name("indiana_reports.csv")
    labels = {
        cells["uid"]: _headings((cells.get("Problems") or cells["MeSH"]).split(";"))
        for _, cells in (read_table(table, ("uid", "MeSH")) if table.exists() else ())
    }
    reports = {}
    for _, cells in read_table(projections, ("uid", "filename", "projection")):
        key, uid = _key(cells["filename"]), cells["uid"]
        from_xml = known[key].labels if key in known else ()
        reports[key] = _Report(uid, labels.get(uid, from_xml), cells["projection"].lower())
    return reports


def _key(name: str) -> str:
    found = _IMAGE_NAME.match(name)
    return f"{found['uid']}_{found['image']}" if found else name.removesuffix(".png").removesuffix(".dcm")


def _headings(terms: Iterable[str]) -> tuple[str, ...]:
    """MeSH terms without their qualifiers: "Cardiomegaly/borderline" is about Cardiomegaly."""
    heads = (term.split("/")[0].strip().replace("|", " ") for term in terms)
    return tuple(dict.fromkeys(head for head in heads if head))
