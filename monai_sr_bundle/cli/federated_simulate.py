"""`monai-sr federated simulate`: all sites of a study on this machine, from one data set."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.cli.options import add_progress_option
from monai_sr_bundle.cli.progress_bar import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated simulate`."""
    add_simulation_options(parser, "folder for models and table; a killed run goes on there")
    parser.set_defaults(run=run)


def add_simulation_options(parser: argparse.ArgumentParser, out_help: str) -> None:
    """Add the options of every simulation of a study."""
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of a study (docs/federated.md)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the prepared data sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help=out_help)
    parser.add_argument(
        "--sites", type=int, metavar="N", help="number of sites that share the patients, if the study names none"
    )
    parser.add_argument("--quick", action="store_true", help="60 iterations a site: shows that it runs, and no more")
    add_progress_option(parser)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated simulate` and return its exit code."""
    from monai_sr_bundle.federated.simulation import simulate

    with progress_bar(options.study, "part", enabled=options.progress == "bar") as progress:
        table = simulate(
            options.study, options.data, options.out, sites=options.sites, quick=options.quick, progress=progress
        )
    print(table)
    return 0
