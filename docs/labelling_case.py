"""Nodules of four patients as up to four real readers drew them, on a server: the page's picture and figures.

    python docs/labelling_case.py DIR OUT.jpg

DIR holds the image sets `ct` and `ct_patients` with the readings of LIDC-IDRI. A reading is of one nodule, by a reader
whom LIDC does not name. Readings are submitted, fused, and the nodule enlarged by requests to a real server.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import PIL.ImageDraw

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "monailabel_app"))

from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, format_readings
from processes import Server

TABLES = ("ct_patients/boxes.csv", "ct_patients/lidc0314_boxes.csv")
BUNDLE, SCALE = "chest_ct_blind", 4
SIDE, ZOOM = 48, 8
LUNG_HU = (-1350.0, 150.0)
COLOURS = [(255, 140, 25), (70, 160, 255), (230, 90, 200), (250, 220, 60)]
CONSENSUS = (80, 220, 100)


def main() -> None:
    """Print how well the readers agree, and write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the image sets")
    parser.add_argument("out", type=Path, help="picture to write")
    options = parser.parse_args()
    tiles = []
    with tempfile.TemporaryDirectory() as folder:
        studies = Path(folder, "studies")
        studies.mkdir()
        volumes = read_boxes(options.data)
        for volume in volumes:
            shutil.copy(options.data / volume, studies)
        server = Server(studies, Path(folder, "store"), BUNDLE).start()
        try:
            for volume, readings in volumes.items():
                tiles.append(draw_case(server, options.data / volume, largest_nodule(readings)))
            server.send("PUT", "/activelearning/readers", json={"readers": 9})
            order = [
                server.send("POST", "/activelearning/disagreement", json={"client_id": "next"})["id"] for _ in volumes
            ]
            print(f"next by disagreement: {', '.join(order)}")
        finally:
            server.stop()
    PIL.Image.fromarray(np.vstack([np.hstack(tiles[:2]), np.hstack(tiles[2:])])).save(options.out, quality=88)


def read_boxes(data: Path) -> dict[str, dict[str, list[Box]]]:
    """Return the boxes by volume and reading."""
    volumes: dict[str, dict[str, list[Box]]] = {}
    for table in TABLES:
        with (data / table).open(newline="") as file:
            for row in csv.DictReader(file):
                edges = (float(row[name]) for name in ("x_min", "y_min", "x_max", "y_max"))
                box = Box(row["finding"], *edges, slice_index=int(row["slice_index"]))
                volumes.setdefault(row["image"], {}).setdefault(row["reader"], []).append(box)
    return volumes


def largest_nodule(readings: dict[str, list[Box]]) -> dict[str, list[Box]]:
    """Return the readings of the nodule that most readers have seen on one slice; of several, of the larger one."""

    def overlapping(box: Box) -> dict[str, list[Box]]:
        return {
            reader: boxes
            for reader, boxes in readings.items()
            if any(
                each.slice_index == box.slice_index
                and each.x_min < box.x_max and box.x_min < each.x_max
                and each.y_min < box.y_max and box.y_min < each.y_max
                for each in boxes
            )
        }  # fmt: skip

    every = [box for boxes in readings.values() for box in boxes]
    area = {id(box): (box.x_max - box.x_min) * (box.y_max - box.y_min) for box in every}
    return overlapping(max(every, key=lambda box: (len(overlapping(box)), area[id(box)])))


def draw_case(server: Server, volume: Path, readings: dict[str, list[Box]]) -> np.ndarray:
    """Submit the readings of a nodule; return it as it is with them, beside it enlarged with their consensus."""
    image = volume.name
    for reader, boxes in readings.items():
        reading = Reading(ImageIdentity(image), Reader(reader), tuple(boxes), "submitted")
        server.send("PUT", f"/boxes/{image}", json=json.loads(format_readings([reading])))
    agreement = server.get(f"/boxes/{image}/agreement")
    (fused,) = server.send("POST", f"/boxes/{image}/consensus")["readings"]
    between = np.mean([pair["overlap"] for pair in agreement["pairs"] if pair["matched"]])
    with_consensus = np.mean([pair["overlap"] for pair in agreement["with_consensus"] if pair["matched"]])
    print(
        f"{image}: {len(readings)} readings, overlap {between:.3f} between them and {with_consensus:.3f} with the "
        f"consensus, disagreement {agreement['disagreement']:.3f}"
    )
    largest = max(fused["boxes"], key=lambda box: (box["xyxy"][2] - box["xyxy"][0]) * (box["xyxy"][3] - box["xyxy"][1]))
    index, edges = largest["slice_index"], largest["xyxy"]
    left, top = (int((edges[axis] + edges[axis + 2]) / 2) - SIDE // 2 for axis in (0, 1))
    params = {"region": [left, top, left + SIDE, top + SIDE], "slices": [index, index + 1]}
    answer = server.call(
        "POST", f"/infer/{BUNDLE}", params={"image": image, "output": "image"}, data={"params": json.dumps(params)}
    )
    answer.raise_for_status()
    enlarged = nibabel.Nifti1Image.from_bytes(gzip.decompress(answer.content)).get_fdata()[..., 0].T
    source: Any = nibabel.load(volume)
    crop = source.get_fdata()[left : left + SIDE, top : top + SIDE, index].T
    before = draw_tile(crop, ZOOM)
    after = draw_tile(enlarged, ZOOM // SCALE)
    for colour, boxes in zip(COLOURS, readings.values(), strict=False):
        for box in boxes:
            if box.slice_index == index:
                draw_box(before, box.xyxy, (left, top), colour)
    draw_box(after, edges, (left, top), CONSENSUS)
    tile = np.hstack([np.asarray(before), np.asarray(after)])
    pen = PIL.Image.fromarray(tile)
    words = f"{image.partition('_')[0].upper()}, slice {index}: {len(readings)} readings | consensus, enlarged x{SCALE}"
    PIL.ImageDraw.Draw(pen).text((6, 4), words, fill=(255, 255, 255))
    return np.asarray(pen)


def draw_tile(hu: np.ndarray, zoom: int) -> PIL.Image.Image:
    """Return values in HU as a picture, `zoom` times as large without new values between pixels."""
    low, high = LUNG_HU
    grey = np.rint(np.clip((hu - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    return PIL.Image.fromarray(np.kron(grey, np.ones((zoom, zoom), np.uint8))).convert("RGB")


def draw_box(picture: PIL.Image.Image, edges: Any, corner: tuple[int, int], colour: tuple[int, int, int]) -> None:
    """Draw a box of the source on its enlarged crop."""
    corners = [ZOOM * (edge - corner[axis % 2]) for axis, edge in enumerate(edges)]
    PIL.ImageDraw.Draw(picture).rectangle(corners, outline=colour, width=2)


if __name__ == "__main__":
    main()
