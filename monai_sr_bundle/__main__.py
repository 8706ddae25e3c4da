"""The command line: `monai-sr`, also `python -m monai_sr_bundle`. Each command is a file of `cli/`."""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from monai_sr_bundle import __version__, _compat
from monai_sr_bundle.cli import boxes, bundles, calibrate, demo, enhance, evaluate, federated, label, prepare, train
from monai_sr_bundle.cli.exit_codes import EXIT_CODES, explain_end, raise_terminated
from monai_sr_bundle.cli.lines import log_lines, one_line
from monai_sr_bundle.errors import BundleError, SuperResolutionError

EXTRAS = dict.fromkeys(("torch", "monai", "ignite", "onnx", "jsonschema"), "torch")
EXTRAS |= dict.fromkeys(("matplotlib", "scipy"), "torch,benchmark")
EXTRAS["nvflare"] = "torch,federated"
EXTRAS |= {"ray": "cluster", "model_signing": "signing", "OpenSSL": "signing"}
"""The extra that installs a package."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")  # a console may lack a letter of a file's name
    previous_handler = signal.signal(signal.SIGTERM, raise_terminated)
    try:
        with _folder_kept_out_of_processes():
            code = run_command(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except (SuperResolutionError, MemoryError, KeyboardInterrupt) as error:
        reason, code = explain_end(error)
        print(one_line(f"monai-sr: error: {reason}"), file=sys.stderr)
        return code
    except BrokenPipeError:
        # The reader of our lines has gone; the lines left in the buffer must not raise again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, previous_handler)


def run_command(arguments: list[str]) -> int:
    """Run one command and return its exit code.

    Raises:
        BundleError: a package that the command needs is not installed.
    """
    _compat.quiet_openmp()
    options = build_parser().parse_args(arguments)
    options.arguments = arguments
    if options.run is not train.run:  # its buffers have the same sizes in every step
        _compat.return_large_buffers()
    quiet = getattr(options, "quiet", False)
    log_lines(logging.ERROR if quiet else logging.WARNING)
    try:
        return int(options.run(options))
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        if package not in EXTRAS:
            raise
        extra = EXTRAS["nvflare" if options.command == "federated" else package]  # not first the one, then the other
        raise BundleError(
            f"`monai-sr {options.command}` needs {package}, not installed here. "
            f"Install with `pip install -c constraints.txt '.[{extra}]'` in this package's folder."
        ) from error


@contextmanager
def _folder_kept_out_of_processes() -> Iterator[None]:
    """Let processes that are started meanwhile import nothing from the current folder, where this one does not.

    Python looks there first for a process that is started by `-m` or `-c`, as those of `--jobs` are. A folder of images
    that somebody sent may hold a `json.py`.
    """
    name = "PYTHONSAFEPATH"
    if name in os.environ or not {"", _current_folder()}.isdisjoint(sys.path):
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def _current_folder() -> str:
    try:
        return os.getcwd()
    except OSError:  # it was removed
        return ""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of all commands."""
    parser = argparse.ArgumentParser(
        prog="monai-sr",
        description="Super-resolution of chest X-ray and chest CT. Research only, not a medical device.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"monai-sr-bundle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, summary, add_arguments in (
        ("enhance", "super-resolve images", enhance.add_arguments),
        ("demo", "super-resolve a CT slice and a drawn radiograph, or your image", demo.add_arguments),
        ("bundles", "list the bundles", bundles.add_list_arguments),
        ("prepare", "bring a public data set into one manifest", prepare.add_arguments),
        ("train", "train a bundle", train.add_arguments),
        ("export", "write a bundle's ONNX files, or put trained weights into it", bundles.add_export_arguments),
        ("calibrate", "make error bars hold for the images of a site", calibrate.add_arguments),
        ("evaluate", "measure a bundle against bicubic", evaluate.add_evaluate_arguments),
        ("benchmark", "compare methods as the published tables do", evaluate.add_benchmark_arguments),
        ("boxes", "write or read anomaly boxes as DICOM Structured Reports", boxes.add_arguments),
        ("label", "serve images to radiologists who draw boxes (MONAI Label)", label.add_arguments),
        ("federated", "train a bundle together with other hospitals (NVFlare)", federated.add_arguments),
        ("pack", "make a MONAI bundle that runs by itself", bundles.add_pack_arguments),
        ("sign", "sign a packed bundle with your private key", bundles.add_sign_arguments),
        ("verify", "check a packed bundle as the model zoo does", bundles.add_verify_arguments),
    ):
        add_arguments(commands.add_parser(name, help=summary))
    return parser


if __name__ == "__main__":
    sys.exit(main())
