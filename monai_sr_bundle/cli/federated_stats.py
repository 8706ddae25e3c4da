"""`monai-sr federated stats`: histograms of the intensity and sharpness of the images of all hospitals."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated stats`."""
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument("--admin", type=Path, required=True, metavar="KIT", help="folder of the coordinator's kit")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="JSON file for the histograms")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated stats` and return its exit code."""
    from monai_sr_bundle.federated.site_statistics import collect_statistics, describe_statistics
    from monai_sr_bundle.federated.study import read_study
    from monai_sr_bundle.federated.submit import open_session

    study = read_study(options.study)
    with open_session(options.admin) as session:
        print(describe_statistics(collect_statistics(session, study.task.bundle, options.out)))
    return 0
