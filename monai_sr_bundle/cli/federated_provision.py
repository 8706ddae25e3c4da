"""`monai-sr federated provision`: the start-up kits of a federation."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated provision`."""
    parser.add_argument(
        "project", type=Path, metavar="FILE", help="participants; begin with federated/policy/project.yaml"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder for the kits and their authority"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated provision` and return its exit code."""
    from monai_sr_bundle.federated.startup_kits import provision

    kits = provision(options.project, options.out)
    print(f"kits, one zip file for each participant: {kits.folder}")
    for name in kits.own_keys:
        print(f"{name} makes its own key: send it {kits.folder.parent / f'{name}.participant.yaml'}")
    print(f"fingerprint, to be told by telephone: {kits.fingerprint}")
    print(f"root certificate until {kits.root_expires:%Y-%m-%d}, first kit until {kits.kits_expire:%Y-%m-%d}")
    print(f"whoever reads {kits.folder.parent} can admit participants: keep it closed, and keep a backup")
    return 0
