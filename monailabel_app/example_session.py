"""A whole session on drawn chests: `python monailabel_app/example_session.py OUT`.

A PACS (Orthanc) and the server start on this machine; two readers mark the nodules, an adjudicator decides on their
consensus, a bundle learns from the boxes and is promoted if it is not worse on held-out patients; results and reports
go into the PACS, and the boxes out in every format. OUT keeps the exports, a picture and a backup.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import PIL.ImageDraw
import pydicom
from dicomweb_client import DICOMwebClient

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from labelling.formats.exchange import EXPORTS
from labelling.training_data import split_of
from monai_sr_bundle.boxes.box import Box
from monai_sr_bundle.boxes.readings import ImageIdentity, Reader, Reading, format_readings
from monai_sr_bundle.datasets.phantom import NODULES, write_phantom_dicom
from processes import ROOT, Server, label_command, start_orthanc, wait_for

BUNDLE = "chest_xray_edsr_x4"
PATIENTS = {"train": 3, "val": 1, "test": 3}
READERS = {"ada": "reader", "bob": "reader", "eve": "adjudicator", "root": "admin"}
COLOURS = {"ada": (255, 140, 25), "bob": (70, 160, 255), "consensus": (80, 220, 100)}
TRAINING_SECONDS = 3600


def run_session(out: Path, *, bundles: str = BUNDLE, size: int = 256, iterations: int = 300) -> dict[str, Any]:
    """Run the session, and return what it found.

    Args:
        out: folder to make.
        bundles: the bundle that learns, by name or folder.
        size: rows and columns of the drawn chests.
        iterations: steps of the training.

    Returns:
        `history` of an image that a reader has read twice; `agreement` between the readers and of each with the
        consensus, by image; the `training` with its report; the `warnings` of a result; numbers of stored objects,
        exported files and rows of the audit log.
    """
    out.mkdir(parents=True)
    orthanc, pacs = start_orthanc(out / "orthanc")
    server = Server(pacs, out / "store", bundles, READERS)
    tokens = server.tokens
    try:
        nodules = send_chests(pacs, out / "images", size)
        server.start()
        print(f"PACS {pacs}, server {server.url}, {len(nodules)} images")

        for name in ("ada", "bob"):
            count = read_all(server, tokens[name], name, nodules, size)
            print(f"{name} has read {count} images")
        history = read_again(server, tokens["ada"], next(iter(nodules)))
        for version in history:
            certainties = [box["certainty"] for box in version["readings"][0]["boxes"]]
            print(f"ada, version {version['number']} of {version['written']}: certainties {certainties}")
        agreement = {image: decide(server, tokens["eve"], image) for image in nodules}
        between = [pair["overlap"] for each in agreement.values() for pair in each["pairs"]]
        to_consensus = [pair["overlap"] for each in agreement.values() for pair in each["with_consensus"]]
        print(f"overlap of the readers {np.mean(between):.3f}, of each with the consensus {np.mean(to_consensus):.3f}")
        draw_readings(server, tokens["root"], next(iter(nodules)), size, out / "readings.png")

        name = Path(bundles).name
        job = server.send("POST", f"/train/{name}", tokens["root"], json={"iterations": iterations})["job"]
        training = wait_for(lambda: finished(server, tokens["root"], job), TRAINING_SECONDS)
        print(describe_training(training))

        enhanced = server.send(
            "POST", f"/infer/{name}", tokens["root"], params={"image": next(iter(nodules)), "output": "json"},
            data={"params": json.dumps({"store": True})},
        )  # fmt: skip
        reports = server.send("POST", "/export/pacs", tokens["root"])
        stored = len(enhanced["stored"]) + len(reports["stored"])
        print(f"stored in the PACS: {len(enhanced['stored'])} result, {len(reports['stored'])} reports")
        exports = export_all(server, tokens["root"], out / "exports")
        backup = out / "boxes-backup.sqlite"
        subprocess.run(label_command(server.store, "backup", str(backup)), check=True, cwd=ROOT)
        audit = server.get("/audit", tokens["root"])
        listing = server.get("/datastore/", tokens["eve"], params={"output": "all"})
        print(f"audit log: {len(audit['rows'])} rows, {len(audit['problems'])} problems; exports: {', '.join(exports)}")
        return {
            "history": history, "agreement": agreement, "training": training, "stored": stored, "exports": exports,
            "backup": backup, "audit": audit, "images": sorted(listing["objects"]), "warnings": enhanced["warnings"],
        }  # fmt: skip
    finally:
        server.stop()
        orthanc.terminate()
        orthanc.wait(60)


def send_chests(pacs: str, folder: Path, size: int) -> dict[str, list[tuple[float, ...]]]:
    """Store drawn chests of patients on every side of the split in the PACS.

    Returns:
        The edges of the drawn nodules, by image.
    """
    folder.mkdir()
    missing, nodules, seed = dict(PATIENTS), {}, 0
    client = DICOMwebClient(pacs)
    while any(missing.values()):
        patient = f"EXAMPLE-{seed}"
        side = split_of(hashlib.sha256(patient.encode()).hexdigest()[:16])
        if missing[side]:
            missing[side] -= 1
            write_phantom_dicom(folder / f"{seed}.dcm", size, seed)
            dataset = pydicom.dcmread(folder / f"{seed}.dcm")
            dataset.PatientID = patient
            client.store_instances([dataset])
            nodules[str(dataset.SeriesInstanceUID)] = [
                tuple(
                    size * (centre + sign * nodule.diameter / 2) for sign in (-1, 1) for centre in (nodule.x, nodule.y)
                )
                for nodule in NODULES
            ]
        seed += 1
    return nodules


def read_all(server: Server, token: str, reader: str, nodules: dict[str, list[tuple[float, ...]]], size: int) -> int:
    """Take one image after the other from the queue, and submit the nodules as a reader who is not exact.

    Returns:
        The number of images.
    """
    hand = np.random.default_rng(int.from_bytes(hashlib.sha256(reader.encode()).digest()[:4], "big"))
    count = 0
    while image := server.send("POST", "/activelearning/random", token, json={}).get("id"):
        boxes = []
        for edges in nodules[image]:
            slack = 0.12 * (edges[2] - edges[0]) + 0.5
            drawn_edges = np.clip(
                np.array(edges) + hand.uniform(-slack, slack, 4) + slack * np.array([-1, -1, 1, 1]), 0, size
            )
            boxes.append(Box("Nodule", *map(float, drawn_edges), certainty=round(float(hand.uniform(0.6, 1)), 2)))
        reading = Reading(ImageIdentity(image), Reader(""), tuple(boxes), "submitted", saw_enhanced=False)
        server.send("PUT", f"/boxes/{image}", token, json=json.loads(format_readings([reading])))
        count += 1
    return count


def read_again(server: Server, token: str, image: str) -> list[dict[str, Any]]:
    """Submit the own boxes of an image again, now certain of them; returns all versions."""
    (version,) = server.get(f"/boxes/{image}", token)["versions"]
    for box in version["readings"][0]["boxes"]:
        box["certainty"] = 1.0
    document = {"schema": version["schema"], "readings": version["readings"]}
    server.send("PUT", f"/boxes/{image}", token, params={"based_on": version["number"]}, json=document)
    return list(server.get(f"/boxes/{image}/history", token)["versions"])


def decide(server: Server, token: str, image: str) -> dict[str, Any]:
    """Fuse the readings of an image, and accept the consensus; returns how well the readers agree."""
    agreement = server.get(f"/boxes/{image}/agreement", token)
    draft = server.send("POST", f"/boxes/{image}/consensus", token)
    (reading,) = draft["readings"]
    decided = {"schema": draft["schema"], "readings": [{**reading, "status": "submitted", "reader": {"id": ""}}]}
    decided["readings"][0]["no_finding"] = not reading["boxes"]
    query = {"based_on": draft["number"]}
    server.send("PUT", f"/boxes/{image}/adjudication", token, params=query, json=decided)
    return dict(agreement)


def finished(server: Server, token: str, job: str) -> dict[str, Any] | None:
    """Return a training that is over."""
    state = server.get(f"/train/{job}", token)
    return state if state["state"] not in ("preparing", "training", "comparing") else None


def describe_training(training: dict[str, Any]) -> str:
    """Return a training in some lines."""
    if training["state"] != "done":
        return f"training {training['state']}: {training.get('reason', '')}"
    report = training["report"]
    lines = [
        f"{figure['where']}: {figure['before']:.2f} dB before, {figure['after']:.2f} dB after, difference "
        f"{figure['difference']:+.2f} [{figure['low']:+.2f}, {figure['high']:+.2f}] on {figure['patients']} patients"
        for figure in report["figures"].values()
    ]
    lines.append(f"{'promoted' if training['promoted'] else 'not promoted'}: {report['reason']}")
    return "\n".join([*lines, *filter(None, [report.get("error_bars")])])


def export_all(server: Server, token: str, folder: Path) -> list[str]:
    """Write the boxes in every format; returns the names of the files."""
    folder.mkdir()
    for name in EXPORTS:
        answer = server.call("GET", "/export", token, params={"format": name})
        answer.raise_for_status()
        filename = answer.headers["content-disposition"].split('"')[1]
        (folder / f"{name}-{filename}").write_bytes(answer.content)
    return sorted(path.name for path in folder.iterdir())


def draw_readings(server: Server, token: str, image: str, size: int, out: Path) -> None:
    """Draw an image with the boxes of its readers and of the consensus."""
    zoom = max(1, 768 // size)
    params = {"image": image, "series": "zip"}
    content = pydicom.dcmread(io.BytesIO(server.call("GET", "/datastore/image", token, params=params).content))
    pixels = (content.pixel_array / 4095 * 255).astype(np.uint8)
    picture = (
        PIL.Image.fromarray(pixels).resize((size * zoom, size * zoom), PIL.Image.Resampling.BICUBIC).convert("RGB")
    )
    pen = PIL.ImageDraw.Draw(picture)
    versions = server.get(f"/boxes/{image}", token)["versions"]
    for version in sorted(versions, key=lambda each: each["reader"] != "consensus"):  # below the others
        width = 3 if version["reader"] == "consensus" else 1
        for box in version["readings"][0]["boxes"]:
            pen.rectangle([edge * zoom for edge in box["xyxy"]], outline=COLOURS[version["reader"]], width=width)
    for row, (name, colour) in enumerate(COLOURS.items()):
        pen.text((8, 8 + 14 * row), name, fill=colour)
    picture.save(out)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the session of the command line."""
    parser = argparse.ArgumentParser(description="Two readers, a consensus, a training, and a PACS, on drawn chests.")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make")
    parser.add_argument("--bundle", default=BUNDLE, help=f"bundle that learns (default {BUNDLE})")
    parser.add_argument("--iterations", type=int, default=300, help="steps of the training (default 300)")
    parser.add_argument("--size", type=int, default=256, help="rows and columns of the chests (default 256)")
    options = parser.parse_args(arguments)
    run_session(options.out.absolute(), bundles=options.bundle, size=options.size, iterations=options.iterations)
    return 0


if __name__ == "__main__":
    sys.exit(main())
