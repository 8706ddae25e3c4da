"""`monai-sr enhance`: super-resolve images."""

from __future__ import annotations

import argparse
import textwrap
from pathlib import Path

from monai_sr_bundle.cli.exit_codes import EXIT_CODES, explain_end
from monai_sr_bundle.cli.options import add_runtime_options, add_sampler_options, count_or_auto, positive_count
from monai_sr_bundle.errors import SuperResolutionError, UsageError

EXAMPLE = "example: monai-sr enhance chest.dcm chest_x4.dcm --preview --report"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr enhance`."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = f"{EXAMPLE}\n\n{textwrap.fill(EXIT_CODES, 78)}"
    _add_input_options(parser)
    _add_model_options(parser)
    _add_output_options(parser)
    _add_batch_options(parser)
    parser.set_defaults(run=run)


def _named(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("is empty, expected a file or a folder. Is a variable not set?")
    return text


def _named_path(text: str) -> Path:
    return Path(_named(text))


def _add_input_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("input")
    group.add_argument(
        "inputs",
        nargs="+",
        type=_named_path,
        metavar="IN",
        help="DICOM file, series folder or zip, NIfTI, PNG, JPEG, TIFF",
    )
    group.add_argument(
        "--roi",
        nargs=4,
        type=int,
        metavar=("X0", "Y0", "X1", "Y1"),
        help="enlarge this region only, in input pixels; X1 and Y1 are excluded",
    )
    group.add_argument(
        "--spacing-mm",
        nargs=2,
        type=float,
        metavar=("ROW", "COLUMN"),
        help="pixel spacing in mm, for a file that does not state it",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--bundle", metavar="NAME", help="name or folder of a bundle (default: by modality)")
    group.add_argument(
        "--scale",
        type=count_or_auto,
        default="auto",
        metavar="N",
        help="enlarge N times, for a bundle of several scales (default auto: the largest one that keeps a whole film "
        "within 4096 pixels and a CT slice within 1024, at least 2; along the slices, new slices at least 0.8 mm apart "
        "where it can)",
    )
    group.add_argument("--force", action="store_true", help="use a bundle made for another modality")
    group.add_argument(
        "--force-model",
        action="store_true",
        help="enlarge by the model even an image that is unlike all it knows, which is interpolated otherwise",
    )
    add_runtime_options(group)
    group.add_argument("--seed", type=int, default=0, help="seed of the random noise (default 0)")
    add_sampler_options(group)


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    group.add_argument(
        "out",
        type=_named,
        metavar="OUT",
        help="file or folder for the result, in the format of IN; stands right behind IN",
    )
    group.add_argument(
        "--preview", action="store_true", help="also write a picture: input, bicubic, result, difference"
    )
    group.add_argument("--report", action="store_true", help="also write a report as JSON and HTML")
    group.add_argument(
        "--error-bars",
        action="store_true",
        help="also write the error bar of each pixel as an image, and a mask with --tolerance",
    )
    group.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="calibrate the error bars for your site, with a file of `monai-sr calibrate`",
    )
    group.add_argument(
        "--tolerance",
        type=float,
        metavar="T",
        help="mark pixels whose error bar is wider than T, in grey levels or HU; requires --report or --error-bars",
    )
    group.add_argument(
        "--output-format",
        choices=("same", "nifti"),
        default="same",
        help="nifti: write DICOM images as .nii.gz, with the same values and positions (default: as IN)",
    )
    older = group.add_mutually_exclusive_group()
    older.add_argument("--overwrite", action="store_true", help="replace older results")
    older.add_argument(
        "--skip-existing",
        action="store_true",
        help="leave out images whose result is there, with all that was asked for beside it; goes on with a batch",
    )
    group.add_argument(
        "--dry-run",
        action="store_true",
        help="write nothing; say what would be done and warned of, and estimate time, memory and size",
    )
    group.add_argument(
        "--progress",
        choices=("bar", "json", "none"),
        default="bar",
        help="show a bar (default), JSON lines, or nothing",
    )
    group.add_argument("--quiet", action="store_true", help="print errors only")


def _add_batch_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several images")
    group.add_argument(
        "--jobs",
        type=positive_count,
        default=1,
        metavar="N",
        help="work on N images at the same time, each in a process with the memory of one (default 1)",
    )
    group.add_argument(
        "--engine",
        choices=("local", "ray"),
        default="local",
        help="ray: let a Ray cluster do the work, an image a core; needs the extra [cluster]",
    )
    group.add_argument(
        "--address", help="address of the Ray cluster (default: RAY_ADDRESS, else one on this machine alone)"
    )


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr enhance` and return its exit code."""
    from monai_sr_bundle.cli.console import JsonLines, Terminal
    from monai_sr_bundle.cli.jobs import Job
    from monai_sr_bundle.images.geometry import Region
    from monai_sr_bundle.inferers.sampler_options import SamplerOptions

    listener: JsonLines | Terminal
    if options.progress == "json":
        listener = JsonLines()
    else:
        listener = Terminal(bar=options.progress == "bar", quiet=options.quiet, dry_run=options.dry_run)
    try:
        if options.quiet and options.progress == "json":
            raise UsageError(
                "--quiet: --progress json is for a program, which needs every line. Leave one of them out."
            )
        if options.engine != "ray" and options.address is not None:
            raise UsageError("--address: is that of a Ray cluster. Add --engine ray, or leave it out.")
        if options.engine == "ray" and options.jobs > 1:
            raise UsageError("--jobs: Ray decides how many images are worked on. Leave it out.")
        job = Job(
            inputs=options.inputs,
            out=options.out,
            bundle=options.bundle,
            scale=options.scale,
            backend=options.backend,
            device=options.device,
            region=Region.from_xyxy(options.roi) if options.roi else None,
            spacing_mm=tuple(options.spacing_mm) if options.spacing_mm else None,
            sampler=SamplerOptions(
                options.seed, options.steps, options.samples, options.texture, options.sampler, options.strength
            ),
            force=options.force,
            force_model=options.force_model,
            calibration=options.calibration,
            tolerance=options.tolerance,
            error_bars=options.error_bars,
            preview=options.preview,
            report=options.report,
            output_format=options.output_format,
            overwrite=options.overwrite,
            skip_existing=options.skip_existing,
            jobs=options.jobs,
            engine=options.engine,
            address=options.address,
            dry_run=options.dry_run,
            command=("monai-sr", *options.arguments),
        )
        errors = job.run(listener)
    except (SuperResolutionError, MemoryError, KeyboardInterrupt) as error:
        reason, code = explain_end(error)
        listener.conclude()
        listener.report_end(reason, code)
        return code
    listener.conclude()
    return errors[0].exit_code if errors else 0
