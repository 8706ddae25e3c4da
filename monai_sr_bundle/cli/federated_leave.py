"""`monai-sr federated leave`: end a study at a hospital, or a hospital's part in it at the server."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.errors import InputError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated leave`."""
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "kit", type=Path, nargs="?", metavar="KIT", help="at the hospital: folder of its kit, to be removed"
    )
    what.add_argument("--revoke", metavar="SITE", help="at the coordinator: hospital that the server shall refuse")
    parser.add_argument("--admin", type=Path, metavar="KIT", help="folder of the coordinator's kit, with --revoke")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated leave` and return its exit code."""
    from monai_sr_bundle.federated.leave import leave, revoke
    from monai_sr_bundle.federated.submit import open_session

    if options.revoke:
        if options.admin is None:
            raise InputError("--revoke needs the coordinator's kit: pass it with --admin.")
        with open_session(options.admin) as session:
            remains = revoke(session, options.revoke)
    else:
        remains = leave(options.kit)
    print("\n".join(remains))
    return 0
