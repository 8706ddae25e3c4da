"""`monai-sr federated`: hospitals train a bundle together, and images stay where they are. Each subcommand is a file."""

from __future__ import annotations

import argparse

from monai_sr_bundle.cli import federated_evaluate, federated_export, federated_simulate

SUBCOMMANDS = (
    ("simulate", "train a study with all its sites on this machine, and compare", federated_simulate),
    ("evaluate", "measure a global model on the images of one site", federated_evaluate),
    ("export", "make a bundle of a global model", federated_export),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `monai-sr federated`."""
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, summary, module in SUBCOMMANDS:
        module.add_arguments(commands.add_parser(name, help=summary))
