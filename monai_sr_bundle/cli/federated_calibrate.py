"""`monai-sr federated calibrate`: error bars that hold for several hospitals, from sums that each of them sends."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.cli.options import positive_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated calibrate`."""
    parser.add_argument("name", metavar="NAME", help="name of a bundle with error bars, installed at all sites")
    group = parser.add_mutually_exclusive_group(required=True)
    group.add_argument("--data", type=Path, metavar="DIR", help="simulate sites that share these prepared images")
    group.add_argument("--admin", type=Path, metavar="KIT", help="folder of a coordinator's kit: at its federation")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the results")
    parser.add_argument(
        "--sites",
        type=positive_count,
        default=3,
        metavar="N",
        help="sites to simulate, or that have to answer (default 3)",
    )
    parser.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="val", help="split of the sites (default val)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="share of pixels that may lie outside their error bar (default 0.1)"
    )
    parser.add_argument("--limit", type=positive_count, metavar="N", help="use N images of each site, evenly spread")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated calibrate` and return its exit code."""
    from monai_sr_bundle.federated.site_calibration import calibrate_federation, simulate_calibration
    from monai_sr_bundle.federated.submit import open_session

    choices = {"sites": options.sites, "split": options.split, "alpha": options.alpha, "limit": options.limit}
    if options.data is not None:
        print(simulate_calibration(options.name, options.data, options.out, **choices))
        return 0
    with open_session(options.admin) as session:
        print(calibrate_federation(session, options.name, options.out, **choices))
    return 0
