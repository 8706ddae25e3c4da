"""`monai-sr federated export`: a bundle of a global model, which says where its weights come from."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated export`."""
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument(
        "--model",
        type=Path,
        required=True,
        metavar="FILE",
        help="the job's FL_global_model.pt, with rounds.json beside",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new folder for the bundle")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated export` and return its exit code."""
    from monai_sr_bundle.federated.export import export

    for line in export(options.study, options.model, options.out):
        print(line)
    return 0
