"""`monai-sr federated join`: check everything at a hospital, or at the server, and start NVFlare."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated join`."""
    parser.add_argument(
        "kit", type=Path, metavar="KIT", help="zip file from the coordinator, or a kit that is here already"
    )
    parser.add_argument(
        "--fingerprint", required=True, metavar="SHA256", help="as the coordinator said on the telephone"
    )
    parser.add_argument("--study", metavar="STUDY", help="name or YAML file of the study; not at the server")
    parser.add_argument("--data", type=Path, metavar="DIR", help="folder of the prepared images; not at the server")
    parser.add_argument(
        "--folder", type=Path, default=Path("federated"), metavar="DIR", help="for kits (default federated)"
    )
    parser.add_argument("--request", type=Path, metavar="DIR", help="folder of the own key, for a NAME.signed.zip")
    parser.add_argument("--policy", type=Path, metavar="DIR", help="a stricter policy of your own")
    parser.add_argument(
        "--budget", type=float, nargs=2, metavar=("EPSILON", "DELTA"), help="of differential privacy, over all studies"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated join` and return its exit code."""
    from monai_sr_bundle.federated.join import join
    from monai_sr_bundle.federated.study import read_study

    join(
        options.kit,
        options.folder,
        options.fingerprint,
        study=read_study(options.study) if options.study else None,
        data=options.data,
        request=options.request,
        policy=options.policy,
        budget=tuple(options.budget) if options.budget else None,
    )
    return 0
