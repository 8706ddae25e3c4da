"""Options that several commands share."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, Literal

from monai_sr_bundle.inferers.sampler_options import SAMPLERS


def count_or_auto(text: str) -> int | Literal["auto"]:
    """Return a whole number from 1 or "auto", as a type of argparse.

    Raises:
        ArgumentTypeError: the text is neither.
    """
    try:
        return "auto" if text == "auto" else positive_count(text)
    except argparse.ArgumentTypeError as error:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1, or auto.") from error


def positive_count(text: str) -> int:
    """Return a whole number from 1, as a type of argparse.

    Raises:
        ArgumentTypeError: the text is none.
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: expected a whole number from 1.")
    return int(text)


def add_runtime_options(parser: Any) -> None:
    """Add --backend and --device to a parser or a group of options."""
    parser.add_argument(
        "--backend",
        choices=("auto", "torch", "onnx", "openvino", "openvino-bf16"),
        default="auto",
        help="runtime of the model (default auto: PyTorch where it is installed, else ONNX Runtime); openvino-bf16 "
        "rounds inside the model to bfloat16, which is faster and changes some pixels by a grey level or two",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto: a GPU where there is one"
    )


def add_sampler_options(parser: Any) -> None:
    """Add the options of diffusion models, flows and noise reduction to a parser or a group of options."""
    parser.add_argument(
        "--steps", type=positive_count, metavar="N", help="number of sampling steps (diffusion models and flows only)"
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="number of samples to draw; the result is their mean (diffusion models, and flows with texture)",
    )
    parser.add_argument(
        "--sampler", choices=tuple(SAMPLERS), help="sampling algorithm; ddpm is ancestral (diffusion models only)"
    )
    parser.add_argument(
        "--texture",
        type=float,
        metavar="T",
        help="amount of synthetic texture, from 0 (default, most faithful) to 1 (flows only)",
    )
    parser.add_argument(
        "--strength",
        type=float,
        metavar="S",
        help="how much of the input's noise to take away, 0 to 1 (only bundles that reduce noise; default: theirs)",
    )


def add_data_options(parser: argparse.ArgumentParser, data_help: str, default_sets: str = "the bundle's") -> None:
    """Add --data and --sets, which choose images of prepared data sets."""
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=data_help)
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help=f"data sets to use, by the names of their folders (default: {default_sets})",
    )


def add_progress_option(parser: argparse.ArgumentParser) -> None:
    """Add --progress to a command that shows a bar or nothing."""
    parser.add_argument("--progress", choices=("bar", "none"), default="bar", help="show a progress bar (default bar)")
