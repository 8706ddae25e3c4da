"""`monai-sr federated evaluate`: a global model on the images of one site."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated evaluate`."""
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument("--model", type=Path, required=True, metavar="FILE", help="the job's FL_global_model.pt")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the site's prepared images")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"), help="default test")
    parser.add_argument("--operator", metavar="NAME", help="degradation of the images (default: the bundle's)")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated evaluate` and return its exit code."""
    from monai_sr_bundle.federated.measurement import evaluate

    print(evaluate(options.study, options.model, options.data, split=options.split, operator=options.operator))
    return 0
