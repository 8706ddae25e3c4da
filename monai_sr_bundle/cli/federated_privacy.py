"""`monai-sr federated privacy`: the cost of protecting the patients of a study, for several noises."""

from __future__ import annotations

import argparse

from monai_sr_bundle.cli.federated_simulate import add_simulation_options
from monai_sr_bundle.cli.progress_bar import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated privacy`."""
    add_simulation_options(parser, "new folder for models and figures")
    parser.add_argument(
        "--noise", type=float, nargs="+", default=[0.5, 1.0, 2.0], metavar="N", help="multipliers (default 0.5 1 2)"
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated privacy` and return its exit code."""
    from monai_sr_bundle.federated.privacy_curve import draw_privacy_curve

    with progress_bar(options.study, "model", enabled=options.progress == "bar") as progress:
        table = draw_privacy_curve(
            options.study,
            options.data,
            options.out,
            options.noise,
            sites=options.sites,
            quick=options.quick,
            progress=progress,
        )
    print(table)
    return 0
