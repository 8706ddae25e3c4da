"""Requests that the server of MONAI Label understands, one of each kind that has a body or values to check.

`request.json` holds the method and the path (`to`), the query, and the body: `json`, or fields of a form, whose upload
is the other file.
"""

from __future__ import annotations

import json
from functools import cache
from typing import Any

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, format_readings

from tests.fuzz.seeds import BOXES, Files, reports, zip_files

FILM, VOLUME = "film.dcm", "volume.nii"
"""Images of the server: 20 x 24 pixels, and the same in 3 slices."""
BUNDLE = "chest_xray_edsr_x4"
LIDC = """<?xml version="1.0"?><LidcReadMessage xmlns="http://www.nih.gov"><readingSession><unblindedReadNodule>
<noduleID>1</noduleID><roi><imageSOP_UID>film.dcm</imageSOP_UID><inclusion>TRUE</inclusion>
<edgeMap><xCoord>5</xCoord><yCoord>6</yCoord></edgeMap><edgeMap><xCoord>9</xCoord><yCoord>12</yCoord></edgeMap>
</roi></unblindedReadNodule><nonNodule><nonNoduleID>3</nonNoduleID></nonNodule></readingSession></LidcReadMessage>"""
MARKUPS = {
    "markups": [
        {
            "type": "ROI", "coordinateSystem": "LPS", "center": [1.0, 2.0, 0.0], "size": [1.0, 1.5, 1.0],
            "orientation": [1, 0, 0, 0, 1, 0, 0, 0, 1],
            "controlPoints": [{"label": "Nodule", "description": '{"certainty": 0.5, "tracking": "2.25.7"}'}],
        },
        {"type": "Fiducial"},
    ]
}  # fmt: skip
COCO = {
    "images": [{"id": 1, "file_name": FILM, "width": 20, "height": 24}],
    "categories": [{"id": 1, "name": "Nodule"}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3.5, 4], "reader": "ada", "certainty": 1}
    ],
    "readings": [{"image": FILM, "reader": "ada", "status": "submitted", "saw_enhanced": False}],
}


def document(image: str, *boxes: Box, reader: str = "ada") -> Any:
    """Return a submitted reading as JSON."""
    reading = Reading(ImageIdentity(image), Reader(reader), boxes, status="submitted", no_finding=not boxes)
    return json.loads(format_readings([reading]))


def _request(method: str, path: str, upload: Files | None = None, **parts: Any) -> Files:
    return {"request.json": json.dumps({"to": [method, path], **parts}).encode(), **(upload or {})}


def _import(format: str, suffix: str, content: bytes, **fields: str) -> Files:
    form = {"format": format, "reader": "eve", **fields}
    return _request("POST", "/import", {f"upload.{suffix}": content}, form=form)


@cache
def seeds() -> tuple[Files, ...]:
    """Return the requests; each is answered without an error, or refused for the state of the server."""
    labels = zip_files({"classes.txt": b"Nodule\nMass\n", f"labels/ada/{FILM}.txt": b"0 0.5 0.5 0.25 0.25\n"})
    table = f"Image Index,Finding Label,Bbox [x,y,w,h],,,\n{FILM},Nodule,1,2.5,3,4,,,\n"
    film, slices = document(FILM, *BOXES), document(VOLUME, Box("Nodule", 1, 2, 3, 4, slice_index=1))
    for reading in (*film["readings"], *slices["readings"]):
        for box in reading["boxes"]:
            box.pop("reader", None)
    in_volume = {"markups": [{**MARKUPS["markups"][0], "coordinateSystem": "RAS"}]}
    options = {
        "scale": 4, "region": [0, 0, 16, 16], "slices": [0, 1], "spacing_mm": [0.2, 0.2], "seed": 1, "texture": 0.5,
        "error_bars": False, "store": False, "client_id": "pc",
    }  # fmt: skip
    return (
        _request("PUT", f"/boxes/{FILM}", json=film, query={"based_on": 1}),
        _request("PUT", f"/boxes/{VOLUME}", json=slices),
        _request("PUT", f"/boxes/{FILM}/adjudication", json=film),
        _request("GET", f"/boxes/{FILM}/history", query={"reader": "ada"}),
        _request("GET", f"/boxes/{FILM}/agreement", query={"iou": 0.4}),
        _request("POST", f"/boxes/{FILM}/consensus", query={"iou": 0.4}),
        _request("DELETE", f"/boxes/{FILM}/ada/1", json={"reason": "the wrong patient"}),
        _request("PUT", "/findings", json={"findings": ["Nodule", "Effusion"]}),
        _import("json", "json", json.dumps(film).encode()),
        _import("coco", "json", json.dumps(COCO).encode()),
        _import("yolo", "zip", labels),
        _import("nih", "csv", table.encode()),
        _import("lidc", "xml", LIDC.encode()),
        _import("slicer", "json", json.dumps(MARKUPS).encode(), image=FILM),
        _import("slicer", "json", json.dumps(in_volume).encode(), image=VOLUME),
        _import("dicom", "dcm", reports()[0]["x.dcm"], image=FILM),
        *(
            _request("GET", "/export", query={"format": name, "image": FILM, "which": "submitted"})
            for name in ("json", "coco", "dicom")
        ),
        _request("PUT", "/datastore/label", {"upload.json": json.dumps(MARKUPS).encode()},
                 query={"image": FILM, "tag": ""}, form={"params": '{"client_id": "pc-7"}'}),
        _request("GET", "/datastore/image/find", query={"sop_instance_uid": "2.25.1010"}),
        _request("POST", "/infer/boxes", query={"image": FILM, "output": "json"},
                 form={"params": '{"client_id": "ada"}'}),
        _request("POST", f"/infer/{BUNDLE}", query={"image": FILM}, form={"params": json.dumps(options)}),
        _request("POST", "/activelearning/random", json={"client_id": "pc-7"}),
        _request("PUT", "/activelearning/readers", json={"readers": 2}),
        _request("POST", "/activelearning/error_bars/measure", json={"model": BUNDLE, "images": [FILM], "scale": 4}),
        _request("POST", f"/train/{BUNDLE}", json={"iterations": 5, "box_weight": 2.0, "seed": 1, "promote": True}),
        _request("POST", "/auth/token", form={"username": "ada", "password": "secret"}),
    )  # fmt: skip
