"""`monai-sr federated stop`: stop NVFlare in a kit of this machine."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated stop`."""
    parser.add_argument("kit", type=Path, metavar="KIT", help="folder of the kit, as `join` printed it")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated stop` and return its exit code."""
    from monai_sr_bundle.federated.join import stop

    stop(options.kit)
    print(f"{options.kit} is stopped; `monai-sr federated join {options.kit} ...` starts it again")
    return 0
