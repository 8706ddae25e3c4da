"""`monai-sr federated`: hospitals train a bundle together, images stay home. Each subcommand is a file."""

from __future__ import annotations

import argparse

from monai_sr_bundle.cli import (
    federated_calibrate,
    federated_evaluate,
    federated_export,
    federated_join,
    federated_leave,
    federated_privacy,
    federated_provision,
    federated_simulate,
    federated_stats,
    federated_stop,
    federated_submit,
)

SUBCOMMANDS = (
    ("simulate", "train a study with all its sites on this machine, and compare", federated_simulate),
    ("provision", "make the start-up kits of a federation", federated_provision),
    ("join", "check everything at a hospital, or at the server, and start", federated_join),
    ("stats", "compare what the images of all hospitals are like", federated_stats),
    ("submit", "run a study on a federation", federated_submit),
    ("stop", "stop a kit of this machine", federated_stop),
    ("leave", "end a study at a hospital, or a hospital's part in it", federated_leave),
    ("evaluate", "measure a global model on the images of one site", federated_evaluate),
    ("privacy", "measure what differential privacy costs a study, for several noises", federated_privacy),
    ("calibrate", "make error bars hold for all sites", federated_calibrate),
    ("export", "make a bundle of a global model", federated_export),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the subcommands of `monai-sr federated`."""
    commands = parser.add_subparsers(dest="subcommand", required=True, metavar="SUBCOMMAND")
    for name, summary, module in SUBCOMMANDS:
        module.add_arguments(commands.add_parser(name, help=summary))
