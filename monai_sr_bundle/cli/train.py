"""`monai-sr train`: train a bundle, or its error bars."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from monai_sr_bundle.cli.options import add_data_options, add_progress_option
from monai_sr_bundle.cli.progress_bar import progress_bar
from monai_sr_bundle.errors import InputError

if TYPE_CHECKING:
    from monai_sr_bundle.bundles import Bundle

ERROR_BARS_STAGE = "error_bars"
"""The stage of training that every bundle has."""
_SET_BY_OPTIONS = ("bundle_root", "dataset_dir", "output_dir", "initial_weights", "load_checkpoint")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr train`."""
    parser.add_argument(
        "name",
        metavar="NAME",
        help="name or folder of a bundle; its texts are run and may hold any program, so read those of others first",
    )
    add_data_options(parser, "folder of a prepared data set, or of several", "those of the bundle, or else all")
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes",
        type=float,
        metavar="N",
        help="training time in minutes (default 60; error_bars: 2, plus inference)",
    )
    length.add_argument("--iterations", type=int, metavar="N", help="number of training steps, instead of minutes")
    length.add_argument("--epochs", type=float, metavar="N", help="passes over the training images, instead of minutes")
    parser.add_argument(
        "--stage",
        metavar="NAME",
        help="stage to train, for instance gan; docs/training.md lists the stages of a bundle",
    )
    parser.add_argument("--start", type=Path, metavar="FILE", help="start from these weights of an earlier run")
    parser.add_argument("--backbone", type=Path, metavar="FILE", help="recognition network of the feature loss")
    parser.add_argument(
        "--set",
        nargs="+",
        metavar="KEY=VALUE",
        help="other keys of the workflow, for instance batch_size=64; docs/training.md says where they stand",
    )
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for checkpoints (default runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="continue from the newest checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0, help="seed of weights and patches (default 0)")
    add_progress_option(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr train` and return its exit code."""
    from monai_sr_bundle.shipped_bundles import find_bundle
    from monai_sr_bundle.training.image_sets import describe_image_sets, with_image_sets
    from monai_sr_bundle.training.training import train  # first of all: without PyTorch no other advice helps

    bundle = find_bundle(options.name)
    usual_sets = bundle.facts.get("sets") or []
    sets = [name for names in options.sets or [] for name in names.split(",")] or None
    bundle = with_image_sets(bundle, options.data, sets)
    print(describe_image_sets(bundle, usual_sets), flush=True)
    if options.stage == ERROR_BARS_STAGE:
        return _train_error_bars(bundle, options)
    has_length = any(value is not None for value in (options.iterations, options.epochs, options.minutes))
    weights = train(
        bundle,
        options.data,
        options.out or Path("runs") / bundle.name,
        iterations=options.iterations,
        epochs=options.epochs,
        minutes=options.minutes if has_length else 60.0,
        resume=options.resume,
        seed=options.seed,
        progress=options.progress == "bar",
        stage=options.stage,
        start=options.start,
        backbone=options.backbone,
        **_parse_keys(options),
    )
    print(f"best weights on the validation split: {weights}")
    if not bundle.is_packed:
        print(f"release them with: monai-sr export {options.name} --weights {weights}")
    return 0


def _parse_keys(options: argparse.Namespace) -> dict[str, Any]:
    keys = {}
    for setting in options.set or []:
        key, _, value = setting.partition("=")
        if key in {*vars(options), *_SET_BY_OPTIONS}:
            raise InputError(f"--set {key}: `monai-sr train` has an option for it, see `monai-sr train --help`.")
        try:
            keys[key] = json.loads(value)
        except json.JSONDecodeError as error:
            raise InputError(
                f"--set {setting}: expected KEY=VALUE with a value as JSON has it, for instance batch_size=64, "
                "tensorboard=true or 'operator=\"area_x4\"'."
            ) from error
    return keys


def _train_error_bars(bundle: Bundle, options: argparse.Namespace) -> int:
    from monai_sr_bundle.calibrate.error_bar_training import train_error_scale

    refused = [name for name in ("start", "backbone", "set", "resume", "epochs") if getattr(options, name)]
    if refused:
        raise InputError(f"--{refused[0]}: the training of error bars does not have this option. Leave it out.")
    has_length = options.iterations is not None or options.minutes is not None
    with progress_bar("enlarging", enabled=options.progress == "bar") as progress:
        weights = train_error_scale(
            bundle,
            options.data,
            options.out or Path("runs") / f"{bundle.name}_error_bars",
            iterations=options.iterations,
            minutes=options.minutes if has_length else 2.0,
            seed=options.seed,
            progress=progress,
        )
    print(f"error bars: {weights}\nrelease them with: monai-sr export {options.name} --error-bars {weights}")
    return 0
