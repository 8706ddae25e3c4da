"""`monai-sr boxes`: anomaly boxes to and from DICOM Structured Reports."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.cli.exit_codes import EXIT_CODES


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr boxes`."""
    directions = parser.add_subparsers(dest="direction", required=True, metavar="DIRECTION")
    to_dicom = directions.add_parser(
        "to-dicom", help="write boxes as a report (TID 1500) into the study of their image", epilog=EXIT_CODES
    )
    to_dicom.add_argument("image", type=Path, metavar="IMAGE", help="DICOM file, series folder or zip")
    to_dicom.add_argument("boxes", type=Path, metavar="BOXES", help="boxes.csv of a data set, or a .json file of boxes")
    to_dicom.add_argument("out", type=Path, metavar="OUT", help="report to write")
    to_dicom.add_argument("--rows-of", metavar="NAME", help="use rows whose `image` is NAME")
    to_dicom.add_argument(
        "--result", type=Path, metavar="IMAGE", help="super-resolved image, if the boxes have measurements of it"
    )
    to_dicom.add_argument(
        "--in-pixels", action="store_true", help="write corners in pixels, even if the position in the patient is known"
    )
    to_dicom.set_defaults(run=run_to_dicom)
    from_dicom = directions.add_parser("from-dicom", help="read boxes from any TID 1500 report", epilog=EXIT_CODES)
    from_dicom.add_argument("report", type=Path, metavar="SR", help="Structured Report by TID 1500")
    from_dicom.add_argument("out", type=Path, metavar="OUT", help=".csv or .json file to write")
    from_dicom.add_argument(
        "--image", type=Path, metavar="IMAGE", help="image of the boxes, to check them and to number their slices"
    )
    from_dicom.set_defaults(run=run_from_dicom)
    for direction in (to_dicom, from_dicom):
        direction.add_argument("--overwrite", action="store_true", help="replace an older file")


def run_to_dicom(options: argparse.Namespace) -> int:
    """Run `monai-sr boxes to-dicom` and return its exit code."""
    from monai_sr_bundle.boxes.box_files import boxes_to_dicom

    count = boxes_to_dicom(
        options.image,
        options.boxes,
        options.out,
        rows_of=options.rows_of,
        result=options.result,
        in_patient=not options.in_pixels,
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {count} box{'es' * (count != 1)}")
    return 0


def run_from_dicom(options: argparse.Namespace) -> int:
    """Run `monai-sr boxes from-dicom` and return its exit code."""
    from monai_sr_bundle.boxes.box_files import boxes_from_dicom

    count = len(boxes_from_dicom(options.report, options.out, image=options.image, overwrite=options.overwrite))
    print(f"{options.out}: {count} box{'es' * (count != 1)}")
    return 0
