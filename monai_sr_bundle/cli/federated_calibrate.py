"""`monai-sr federated calibrate`: error bars that hold for several hospitals, from sums that each of them sends."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated calibrate`."""
    parser.add_argument("name", metavar="NAME", help="name of a bundle with error bars, installed at all sites")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--data", type=Path, metavar="DIR", help="simulate sites that share these prepared images")
    where.add_argument("--job", type=Path, metavar="DIR", help="write the job into this folder, to be submitted")
    parser.add_argument("--out", type=Path, metavar="DIR", help="new folder for the results of a simulation")
    parser.add_argument("--sites", type=int, default=3, metavar="N", help="number of sites (default 3)")
    parser.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="val", help="split of the sites (default val)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="share of pixels that may lie outside their error bar (default 0.1)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use N images of each site, evenly spread")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated calibrate` and return its exit code."""
    from monai_sr_bundle.bundles import find_bundle
    from monai_sr_bundle.errors import InputError
    from monai_sr_bundle.federated.calibration import write_calibration_job
    from monai_sr_bundle.federated.calibration_simulation import simulate_calibration

    if options.job is not None:
        job = write_calibration_job(
            find_bundle(options.name),
            options.job,
            alpha=options.alpha,
            split=options.split,
            limit=options.limit,
            minimum_sites=options.sites,
        )
        print(f"written: {job}")
        return 0
    if options.out is None:
        raise InputError("--out is missing: name a new folder for the results of the simulation.")
    print(
        simulate_calibration(
            options.name,
            options.data,
            options.out,
            sites=options.sites,
            split=options.split,
            alpha=options.alpha,
            limit=options.limit,
        )
    )
    return 0
