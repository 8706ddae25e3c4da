"""`monai-sr federated submit`: run a study on a federation."""

from __future__ import annotations

import argparse
from functools import partial
from pathlib import Path

from monai_sr_bundle.cli.options import positive_count


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr federated submit`."""
    parser.add_argument("study", metavar="STUDY", help="name or YAML file of the study")
    parser.add_argument("--admin", type=Path, required=True, metavar="KIT", help="folder of the coordinator's kit")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for model and record")
    parser.add_argument(
        "--rounds-a-job", type=positive_count, default=10, metavar="N", help="rounds of one job (default 10)"
    )
    parser.add_argument(
        "--continue",
        dest="continued",
        type=Path,
        metavar="DIR",
        help="go on from the model and record in a folder: --out, or JOB/app_server of a server that died",
    )
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr federated submit` and return its exit code."""
    from monai_sr_bundle.federated.study import read_study
    from monai_sr_bundle.federated.submit import describe_rounds, open_session, run_study

    study = read_study(options.study)
    with open_session(options.admin) as session:
        end = run_study(
            session,
            study,
            options.out,
            rounds_a_job=options.rounds_a_job,
            continued=options.continued,
            report=partial(print, flush=True),  # a study takes hours, and its lines may go to a file
        )
    print(describe_rounds(end.rounds))
    print(f"global model: {end.model}")
    print(f"make a bundle of it: monai-sr federated export {options.study} --model {end.model} --out DIR")
    return 0
