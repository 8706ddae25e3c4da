"""`monai-sr prepare`: bring a public data set into one manifest."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.cli.progress_bar import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr prepare`."""
    from monai_sr_bundle.datasets.prepare import SOURCES

    parser.add_argument("source", choices=SOURCES, metavar="SOURCE", help=f"kind of data set: {', '.join(SOURCES)}")
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder of the data set as it was downloaded")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the images and manifest.csv")
    parser.add_argument(
        "--long-side",
        type=int,
        default=512,
        metavar="N",
        help="reduce radiographs to N pixels along the longer side (default 512; 0 keeps their size)",
    )
    parser.add_argument("--limit", type=int, metavar="N", help="take N images only")
    parser.add_argument("--official-split", action="store_true", help="keep the published test patients (nih only)")
    parser.add_argument(
        "--patient-from", metavar="REGEX", help="read the patient from the path of an image (folder only)"
    )
    parser.add_argument("--min-slices", type=int, metavar="N", help="leave out series of fewer slices (ct only)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="number of threads (default 1)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr prepare` and return its exit code."""
    from monai_sr_bundle.datasets.prepare import prepare, summary

    with progress_bar("preparing") as progress:
        prepare(
            options.source,
            options.dir,
            options.out,
            long_side=options.long_side,
            workers=options.workers,
            limit=options.limit,
            progress=progress,
            official_split=options.official_split,
            patient_from=options.patient_from,
            min_slices=options.min_slices,
        )
    print(summary(options.out))
    return 0
