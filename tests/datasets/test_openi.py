"""Open-i, Indiana University: XML reports, and the pair of tables."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai_sr_bundle.datasets.manifest import read_manifest
from monai_sr_bundle.datasets.prepare import prepare

from tests.datasets.layouts import picture, skipped, table

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<eCitation><meta type="rr"/><uId id="CXR{uid}"/>
<MeSH><major>Cardiomegaly/borderline</major><major>Pulmonary Artery/enlarged</major><automatic>x</automatic></MeSH>
{images}</eCitation>"""


def report(folder: Path, uid: int, *images: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    named = "".join(f'<parentImage id="{image}"><figureId>F1</figureId></parentImage>' for image in images)
    (folder / f"{uid}.xml").write_text(REPORT.format(uid=uid, images=named))


def with_xml(folder: Path) -> Path:
    for name in ("CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001", "CXR2_IM-0652-1001", "CXR9_IM-0009-1001"):
        picture(folder / "NLMCXR_png" / f"{name}.png")
    report(folder / "ecgen-radiology", 1, "CXR1_1_IM-0001-3001", "CXR1_1_IM-0001-4001")
    report(folder / "ecgen-radiology", 2, "CXR2_IM-0652-1001", "CXR2_IM-0652-2001")
    return folder


def tables(folder: Path) -> None:
    table(
        folder / "indiana_projections.csv",
        "uid,filename,projection",
        "1,1_IM-0001-4001.dcm.png,Frontal",
        "1,1_IM-0001-3001.dcm.png,Lateral",
    )
    table(
        folder / "indiana_reports.csv", "uid,MeSH,Problems,image", "1,Opacity/lung;Spine/degenerative,Opacity;Spine,x"
    )


def test_xml_reports_give_patient_and_labels_but_no_view(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    prepare("openi", with_xml(tmp_path / "in"), tmp_path / "out")
    records = read_manifest(tmp_path / "out")
    assert [record.patient_id for record in records] == ["openi-1", "openi-1", "openi-2"]
    assert records[0].others["labels"] == "Cardiomegaly|Pulmonary Artery"
    assert {record.view for record in records} == {""}
    assert "do not state whether an image is frontal or lateral" in caplog.text
    assert "1 of 4 pictures named in reports are not in" in caplog.text
    assert skipped(tmp_path / "out") == {"NLMCXR_png/CXR9_IM-0009-1001.png": "no report names it"}


def test_the_tables_give_the_view(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    for name in ("1_IM-0001-4001.dcm.png", "1_IM-0001-3001.dcm.png"):
        picture(folder / "images" / "images_normalized" / name)
    tables(folder)
    prepare("openi", folder, tmp_path / "out")
    records = {record.view: record for record in read_manifest(tmp_path / "out")}
    assert records.keys() == {"frontal", "lateral"}
    assert records["frontal"].file.name == "1_IM-0001-4001.png"
    assert records["frontal"].others["labels"] == "Opacity|Spine"


def test_tables_beside_the_xml_reports_add_the_view(tmp_path: Path) -> None:
    tables(with_xml(tmp_path / "in"))
    prepare("openi", tmp_path / "in", tmp_path / "out")
    views = {record.file.stem: record.view for record in read_manifest(tmp_path / "out")}
    assert views == {"1_IM-0001-3001": "lateral", "1_IM-0001-4001": "frontal", "2_IM-0652-1001": ""}


def test_broken_reports_and_second_copies_are_listed(tmp_path: Path) -> None:
    folder = with_xml(tmp_path / "in")
    (folder / "ecgen-radiology" / "3.xml").write_text("<eCitation>")
    (folder / "ecgen-radiology" / "4.xml").write_text("<eCitation/>")
    picture(folder / "more" / "2_IM-0652-1001.dcm.png")
    prepare("openi", folder, tmp_path / "out")
    reasons = skipped(tmp_path / "out")
    assert reasons["ecgen-radiology/3.xml"].startswith("broken report: ")
    assert reasons["ecgen-radiology/4.xml"] == "a report without uId"
    assert reasons["more/2_IM-0652-1001.dcm.png"] == "this image was found before under another name"
