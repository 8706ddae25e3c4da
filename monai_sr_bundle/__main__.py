"""The command line: `monai-sr`, also `python -m monai_sr_bundle`.

Exit codes: 0 all done; 2 wrong usage; 3 an input cannot be used; 4 a bundle cannot be used; 5 a result cannot be
written; 6 not enough memory; 130 interrupted (143 by SIGTERM). With several images, the code of the first that failed.
"""

from __future__ import annotations

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from monai_sr_bundle import __version__, _compat
from monai_sr_bundle.errors import BundleError, InputError, OutOfMemoryError, SuperResolutionError

if TYPE_CHECKING:
    from monai_sr_bundle.bundles import Bundle

OF_EXTRA = dict.fromkeys(("torch", "monai", "ignite", "onnx"), "torch")
OF_EXTRA |= dict.fromkeys(("matplotlib", "scipy"), "torch,benchmark")
OF_EXTRA |= dict.fromkeys(("slicer", "trame", "trame_slicer"), "web")
ERROR_BARS = "error_bars"
"""The stage of training that belongs to every bundle."""
EXIT_CODES = __doc__.split("\n\n")[1].replace("\n", " ")


class _Terminated(KeyboardInterrupt):
    """SIGTERM, as an exception so that temporary files are removed on the way out."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    before = signal.signal(signal.SIGTERM, _terminate)
    try:
        code = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except (SuperResolutionError, MemoryError, KeyboardInterrupt) as error:
        from monai_sr_bundle.cli.console import one_line

        reason, code = _why(error)
        print(one_line(f"monai-sr: error: {reason}"), file=sys.stderr)
        return code
    except BrokenPipeError:
        # Whoever read our lines has gone; what is still in the buffer must not raise again at the end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE
    finally:
        signal.signal(signal.SIGTERM, before)


def _run(words: list[str]) -> int:
    _compat.quiet_openmp()
    options = _parser().parse_args(words)
    options.words = words
    if options.run is not _train:  # its buffers have the same sizes in every step
        _compat.return_large_buffers()
    quiet = getattr(options, "quiet", False)
    logging.basicConfig(format="monai-sr: %(message)s", level=logging.ERROR if quiet else logging.WARNING)
    try:
        return int(options.run(options))
    except ModuleNotFoundError as error:
        package = str(error.name).split(".")[0]
        if package not in OF_EXTRA:
            raise
        raise BundleError(
            f"`monai-sr {options.command}` needs {package}, not installed here. "
            f"Install with `pip install 'monai-sr-bundle[{OF_EXTRA[package]}]'`."
        ) from error


def _terminate(number: int, frame: object) -> NoReturn:
    raise _Terminated


def _why(error: BaseException) -> tuple[str, int]:
    """What to say of the end of a command, and its exit code."""
    if isinstance(error, SuperResolutionError):
        return str(error), error.exit_code
    if isinstance(error, MemoryError):
        return (
            "not enough memory. Choose a smaller region with --roi, or use another machine.",
            OutOfMemoryError.exit_code,
        )
    if isinstance(error, _Terminated):
        return "stopped by SIGTERM; nothing half-written was left.", 128 + signal.SIGTERM
    return "interrupted; nothing half-written was left.", 128 + signal.SIGINT


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="monai-sr",
        description="Super-resolution of chest X-ray and chest CT. Research only, not a medical device.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action="version", version=f"monai-sr-bundle {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    _add_enhance(commands.add_parser("enhance", help="super-resolve images", epilog=EXIT_CODES))
    _add_view(commands.add_parser("view", help="super-resolve and compare in a browser on this machine"))
    _add_demo(commands.add_parser("demo", help="super-resolve a CT slice and a drawn radiograph, or your image"))
    _add_bundles(commands.add_parser("bundles", help="list the bundles"))
    _add_prepare(commands.add_parser("prepare", help="bring a public data set into one manifest"))
    _add_train(commands.add_parser("train", help="train a bundle"))
    _add_export(commands.add_parser("export", help="put trained weights into a bundle, as PyTorch and ONNX"))
    _add_calibrate(commands.add_parser("calibrate", help="make error bars hold for the images of a site"))
    _add_evaluate(commands.add_parser("evaluate", help="measure a bundle against bicubic"))
    _add_benchmark(commands.add_parser("benchmark", help="compare methods as the published tables do"))
    _add_boxes(commands.add_parser("boxes", help="anomaly boxes to and from DICOM Structured Reports"))
    _add_pack(commands.add_parser("pack", help="make a MONAI bundle that runs by itself"))
    _add_verify(commands.add_parser("verify", help="check a packed bundle as the model zoo does"))
    return parser


def _add_runtime(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--backend", choices=("auto", "torch", "onnx"), default="auto", help="auto: PyTorch where installed"
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU where there is one"
    )


def _add_draw(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, metavar="N", help="of a diffusion model or flow, from noise to image")
    parser.add_argument("--samples", type=int, metavar="N", help="of a diffusion model, whose mean is the result")
    parser.add_argument("--sampler", choices=("ddim", "ddpm"), help="of a diffusion model; ddpm: ancestral")
    parser.add_argument(
        "--texture", type=float, metavar="T", help="of a residual flow: 0, the most faithful (default), to 1"
    )


def _add_enhance(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "inputs", nargs="+", type=Path, metavar="IN", help="DICOM file, series folder or zip, NIfTI, PNG, JPEG, TIFF"
    )
    parser.add_argument("out", metavar="OUT", help="file or folder for the result, of the same kind as IN")
    parser.add_argument("--bundle", metavar="NAME", help="bundle or its folder (default: by modality)")
    parser.add_argument(
        "--roi", nargs=4, type=int, metavar=("X0", "Y0", "X1", "Y1"), help="region in input pixels, upper edge excluded"
    )
    _add_runtime(parser)
    parser.add_argument(
        "--spacing-mm", nargs=2, type=float, metavar=("ROW", "COLUMN"), help="pixel spacing the file lacks"
    )
    parser.add_argument("--seed", type=int, default=0, help="of diffusion models (default 0)")
    _add_draw(parser)
    parser.add_argument("--progress", choices=("bar", "json", "none"), default="bar")
    parser.add_argument(
        "--preview", action="store_true", help="also write a picture: input, bicubic, result, difference"
    )
    parser.add_argument("--report", action="store_true", help="also write a report as JSON and HTML")
    parser.add_argument(
        "--error-bars",
        action="store_true",
        help="also write how far off each pixel may be, as an image; with --tolerance a mask, too",
    )
    parser.add_argument(
        "--calibration", type=Path, metavar="FILE", help="of your site, by `monai-sr calibrate`, for the error bars"
    )
    parser.add_argument(
        "--tolerance", type=float, metavar="T", help="mark pixels whose error bar is wider, in grey levels or HU"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace older results")
    parser.add_argument("--force", action="store_true", help="use a bundle made for another modality")
    parser.add_argument("--dry-run", action="store_true", help="say what would be done and write nothing")
    parser.add_argument("--quiet", action="store_true", help="errors only")
    parser.set_defaults(run=_enhance)


def _enhance(options: argparse.Namespace) -> int:
    from monai_sr_bundle.cli.console import JsonLines, Terminal
    from monai_sr_bundle.cli.jobs import Job
    from monai_sr_bundle.images.geometry import Region
    from monai_sr_bundle.inferers.sampler_options import SamplerOptions

    listener: JsonLines | Terminal
    if options.progress == "json":
        listener = JsonLines()
    else:
        listener = Terminal(bar=options.progress == "bar", quiet=options.quiet, dry_run=options.dry_run)
    job = Job(
        inputs=options.inputs,
        out=options.out,
        bundle=options.bundle,
        backend=options.backend,
        device=options.device,
        region=Region.from_xyxy(options.roi) if options.roi else None,
        spacing_mm=tuple(options.spacing_mm) if options.spacing_mm else None,
        sampler=SamplerOptions(options.seed, options.steps, options.samples, options.texture, options.sampler),
        force=options.force,
        calibration=options.calibration,
        tolerance=options.tolerance,
        error_bars=options.error_bars,
        preview=options.preview,
        report=options.report,
        overwrite=options.overwrite,
        dry_run=options.dry_run,
        command=("monai-sr", *options.words),
    )
    try:
        errors = job.run(listener)
    except (SuperResolutionError, MemoryError, KeyboardInterrupt) as error:
        reason, code = _why(error)
        listener.stopped(reason, code)
        return code
    return errors[0].exit_code if errors else 0


def _add_view(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "image", nargs="?", type=Path, metavar="IMAGE", help="DICOM file, folder or zip, NIfTI, PNG, JPEG, TIFF"
    )
    parser.add_argument("--port", type=int, default=0, metavar="N", help="of 127.0.0.1 (default: any that is free)")
    parser.add_argument("--no-browser", action="store_true", help="print the address and open no browser")
    parser.set_defaults(run=_view)


def _view(options: argparse.Namespace) -> int:
    from monai_sr_bundle.cli.view import view

    try:
        view(options.image, port=options.port, browse=not options.no_browser)
    except _Terminated:
        raise
    except KeyboardInterrupt:
        print("\nThe page is closed.")
    return 0


def _add_demo(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("--image", type=Path, help="your own image instead")
    _add_runtime(parser)
    parser.set_defaults(run=_demo)


def _demo(options: argparse.Namespace) -> int:
    from monai_sr_bundle.cli.demo import run_demo

    return run_demo(options.out, options.image, options.backend, options.device)


def _add_bundles(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--variants", action="store_true", help="also list the variants kept for comparison")
    parser.set_defaults(run=_bundles)


def _bundles(options: argparse.Namespace) -> int:
    from monai_sr_bundle.bundles import all_bundles, all_variants

    rows = [("name", "modality", "scale", "parameters", "licence", "what for")]
    shown = [each for bundle in all_bundles() for each in (bundle, *(all_variants(bundle) if options.variants else ()))]
    for bundle in shown:
        size = f"{bundle.parameters:,}" if bundle.parameters else "none"
        name = f"{bundle.name} (default)" if bundle.is_default else bundle.name
        licence = str(bundle.metadata["copyright"]).rsplit(", ", 1)[-1]
        what = str(bundle.metadata["description" if bundle.is_variant else "task"])
        rows.append((name, bundle.modality, f"x{bundle.scale}", size, licence, what))
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    from monai_sr_bundle.datasets.prepare import SOURCES

    parser.add_argument("source", choices=SOURCES, metavar="SOURCE", help=", ".join(SOURCES))
    parser.add_argument("dir", type=Path, metavar="DIR", help="the data set as it was downloaded")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the images and manifest.csv")
    parser.add_argument(
        "--long-side", type=int, default=512, help="reduce radiographs to this size (default 512; 0 keeps them)"
    )
    parser.add_argument("--limit", type=int, help="take only this many images")
    parser.add_argument("--official-split", action="store_true", help="nih: keep the published test patients")
    parser.add_argument("--patient-from", metavar="REGEX", help="folder: the patient is what this finds in the path")
    parser.add_argument("--min-slices", type=int, metavar="N", help="ct: leave out shorter series")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="threads (default 1)")
    parser.set_defaults(run=_prepare)


def _prepare(options: argparse.Namespace) -> int:
    from tqdm import tqdm

    from monai_sr_bundle.datasets.prepare import prepare, summary

    with tqdm(desc="preparing", unit="image") as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        prepare(
            options.source,
            options.dir,
            options.out,
            long_side=options.long_side,
            workers=options.workers,
            limit=options.limit,
            progress=progress,
            official_split=options.official_split,
            patient_from=options.patient_from,
            min_slices=options.min_slices,
        )
    print(summary(options.out))
    return 0


def _add_train(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="bundle or its folder")
    parser.add_argument(
        "--data", type=Path, required=True, metavar="DIR", help="folder with a manifest, or of such folders"
    )
    parser.add_argument(
        "--sets",
        nargs="+",
        metavar="SET",
        help="folders of the data to train on (default: those of the bundle, or else all)",
    )
    length = parser.add_mutually_exclusive_group()
    length.add_argument(
        "--minutes", type=float, metavar="N", help="of training (default 60; of error bars 2, and their images)"
    )
    length.add_argument("--iterations", type=int, metavar="N", help="steps of training, instead of minutes")
    length.add_argument("--epochs", type=float, metavar="N", help="passes over the training images, instead of minutes")
    parser.add_argument(
        "--stage", metavar="NAME", help="of a bundle trained in several, as gan; docs/training.md lists them"
    )
    parser.add_argument("--start", type=Path, metavar="FILE", help="begin with these weights of an earlier run")
    parser.add_argument("--backbone", type=Path, metavar="FILE", help="recognition network of the feature loss")
    parser.add_argument("--tensorboard", action="store_true", help="also write --out/tensorboard")
    parser.add_argument("--out", type=Path, help="folder for checkpoints (default runs/NAME)")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint in --out")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--progress", choices=("bar", "none"), default="bar")
    parser.set_defaults(run=_train)


def _train(options: argparse.Namespace) -> int:
    from monai_sr_bundle.bundles import find_bundle
    from monai_sr_bundle.training.image_sets import describe_image_sets, with_image_sets

    bundle = find_bundle(options.name)
    usual_sets = bundle.facts.get("sets") or []
    sets = [name for names in options.sets or [] for name in names.split(",")] or None
    bundle = with_image_sets(bundle, options.data, sets)
    print(describe_image_sets(bundle, usual_sets), flush=True)
    if options.stage == ERROR_BARS:
        return _train_error_bars(bundle, options)
    from monai_sr_bundle.training.run import train

    has_length = any(value is not None for value in (options.iterations, options.epochs, options.minutes))
    best = train(
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
        **({"tensorboard": True} if options.tensorboard else {}),
    )
    print(
        f"best weights on the validation split: {best}\n"
        f"release them with: monai-sr export {options.name} --weights {best}"
    )
    return 0


def _train_error_bars(bundle: Bundle, options: argparse.Namespace) -> int:
    from monai_sr_bundle.calibrate.error_bar_training import train_error_scale

    refused = [name for name in ("start", "backbone", "tensorboard", "resume", "epochs") if getattr(options, name)]
    if refused:
        raise InputError(f"--{refused[0]}: error bars are trained in minutes, from nothing but results. Leave it out.")
    has_length = options.iterations is not None or options.minutes is not None
    with _counted("enlarging", options.progress == "bar") as progress:
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


@contextmanager
def _counted(what: str, shown: bool) -> Iterator[Callable[[int, int], None]]:
    """A bar over images."""
    from tqdm import tqdm

    with tqdm(desc=what, unit="image", disable=not shown) as bar:

        def progress(done: int, total: int) -> None:
            bar.total = total
            bar.update(done - bar.n)

        yield progress


def _add_export(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--weights", type=Path, help="a model.pt of `monai-sr train`; default: the bundle's own")
    source.add_argument(
        "--error-bars", type=Path, metavar="FILE", help="an error_bars.pt of `monai-sr train --stage error_bars`"
    )
    source.add_argument(
        "--learnt-from", type=Path, metavar="DIR", help="data it was trained on: state what its inputs were like"
    )
    parser.set_defaults(run=_export)


def _export(options: argparse.Namespace) -> int:
    from monai_sr_bundle.packing.release import release, release_error_bars, release_learnt_from

    if options.learnt_from:
        lines = release_learnt_from(options.name, options.learnt_from)
    elif options.error_bars:
        lines = release_error_bars(options.name, options.error_bars)
    else:
        lines = release(options.name, options.weights)
    for line in lines:
        print(line)
    return 0


def _add_calibrate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="images of the site, with a manifest")
    parser.add_argument("--out", type=Path, metavar="FILE", help="default: calibration.json here")
    parser.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="val", help="of the manifest (default val)"
    )
    parser.add_argument("--sets", nargs="+", metavar="SET", help="folders of the data (default: those of the bundle)")
    parser.add_argument("--alpha", type=float, default=0.1, help="share of pixels that may be outside (default 0.1)")
    parser.add_argument("--limit", type=int, metavar="N", help="take N images, evenly spread; 50 to 100 will do")
    parser.add_argument(
        "--texture", nargs="+", type=float, metavar="T", help="of a residual flow, each with a factor of its own"
    )
    parser.add_argument(
        "--steps", nargs="+", type=int, metavar="N", help="of a diffusion model or flow, each with a factor of its own"
    )
    parser.add_argument("--samples", type=int, metavar="N", help="of a diffusion model, whose mean is the result")
    parser.add_argument("--overwrite", action="store_true", help="replace an older calibration")
    parser.add_argument("--progress", choices=("bar", "none"), default="bar")
    _add_runtime(parser)
    parser.set_defaults(run=_calibrate)


def _calibrate(options: argparse.Namespace) -> int:
    from monai_sr_bundle.calibrate.calibrate import calibrate
    from monai_sr_bundle.images.staging import require_free
    from monai_sr_bundle.inferers.sampler_options import SamplerOptions
    from monai_sr_bundle.uncertainty.calibration import FILE

    out = options.out or Path(FILE)
    require_free(out, overwrite=options.overwrite)
    with _counted("measuring", options.progress == "bar") as progress:
        found = calibrate(
            options.name,
            options.data,
            options.split,
            sets=options.sets,
            samplers=[
                SamplerOptions(steps=steps, samples=options.samples if texture != 0 else None, texture=texture)
                for texture in options.texture or [None]
                for steps in (options.steps or [None] if texture != 0 else [None])
            ],
            alpha=options.alpha,
            limit=options.limit,
            backend=options.backend,
            device=options.device,
            progress=progress,
        )
    found.write(out)
    print(
        f"{found.bundle} {found.version} | {found.split} split{'s' * (found.split == 'all')} of {found.data}: "
        f"{found.images} images of "
        f"{found.patients} patient{'s' * (found.patients != 1)} | {found.operator}"
    )
    for entry in found.entries:
        drawn = f"{entry.sampling.words}: " if entry.sampling else ""
        print(
            f"{drawn}factor {entry.factor:.3g} covers {100 * entry.coverage:.1f} % of the pixels here "
            f"(promised: {found.coverage_percent:g} %), error bars of +-{100 * entry.half_width:.2f} % of the window"
        )
    print(f"written: {out}")
    return 0


def _add_evaluate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR")
    parser.add_argument("--split", default="test", choices=("train", "val", "test"))
    parser.add_argument("--sets", nargs="+", metavar="SET", help="folders of the data (default: those of the bundle)")
    parser.add_argument("--limit", type=int, metavar="N", help="take N images, evenly spread")
    parser.add_argument("--operator", metavar="NAME", help="degradation (default: the bundle's)")
    parser.add_argument("--turned", type=int, choices=(0, 90, 180, 270), default=0, help="turn the images first")
    parser.add_argument("--csv", type=Path, metavar="FILE", help="write the figures of every image")
    parser.add_argument(
        "--at-least",
        metavar="DB",
        help="fail when the mean gain in PSNR over bicubic is lower; `metadata`: the released figure",
    )
    _add_runtime(parser)
    _add_draw(parser)
    parser.set_defaults(run=_evaluate)


def _evaluate(options: argparse.Namespace) -> int:
    from monai_sr_bundle.benchmark.quality import evaluate, least_gain

    found = evaluate(
        options.name,
        options.data,
        options.split,
        sets=options.sets,
        limit=options.limit,
        operator=options.operator,
        rotation_degrees=options.turned,
        backend=options.backend,
        device=options.device,
        sampler=options.sampler,
        steps=options.steps,
        samples=options.samples,
        texture=options.texture,
    )
    print(found.table())
    if options.csv:
        found.write_csv(options.csv)
    if options.at_least is None:
        return 0
    least = least_gain(options.name) if options.at_least == "metadata" else float(options.at_least)
    gain = found.gain("psnr").mean
    if gain < least:
        print(
            f"monai-sr: error: {options.name} gains {gain:.2f} dB over bicubic, expected at least {least:.2f} dB.",
            file=sys.stderr,
        )
        return 1
    print(f"Gain over bicubic: {gain:.2f} dB, expected at least {least:.2f} dB.")
    return 0


def _add_benchmark(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    _add_comparison(
        kinds.add_parser("quality", help="fidelity, texture and cost of every method on the same images"), trust=False
    )
    _add_comparison(
        kinds.add_parser("trust", help="consistency, error bars, invented and lost nodules, on the same images"),
        trust=True,
    )


def _add_comparison(parser: argparse.ArgumentParser, *, trust: bool) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the prepared sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables and page")
    parser.add_argument("--protocol", nargs="+", metavar="NAME", help="comparisons, or their texts (default: all)")
    parser.add_argument("--bundles", nargs="+", metavar="NAME", help="only these methods, and the reference")
    parser.add_argument("--limit", type=int, metavar="N", help="take N images of each set, evenly spread")
    parser.add_argument("--backbone", type=Path, metavar="FILE", help="weights for the SqueezeNet feature distance")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument(
        "--workers",
        type=int,
        metavar="N",
        help="processes that share the images (default: one per core, at most 4; 1 on a GPU)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older benchmark")
    parser.add_argument("--progress", choices=("bar", "none"), default="bar")
    parser.set_defaults(run=_benchmark, trust=trust)


def _benchmark(options: argparse.Namespace) -> int:
    import shlex

    import scipy  # noqa: F401  # of the tables: missed now, not after the measuring
    import torch
    from tqdm import tqdm

    from monai_sr_bundle.benchmark.comparison import Comparison
    from monai_sr_bundle.benchmark.comparison_page import write_page
    from monai_sr_bundle.benchmark.measure import measure, require_measurable
    from monai_sr_bundle.benchmark.protocol import choose_protocols
    from monai_sr_bundle.benchmark.tables import PAGE, markdown, require_results_folder, write_all
    from monai_sr_bundle.benchmark.workers import Workers
    from monai_sr_bundle.errors import InputError

    if options.workers is not None and options.workers < 1:
        raise InputError(f"--workers is {options.workers}, expected at least 1 process.")
    require_results_folder(options.out, overwrite=options.overwrite)
    protocols = choose_protocols(options.protocol, options.bundles, trust=options.trust)
    for protocol in protocols:
        require_measurable(
            protocol, options.data, limit=options.limit, device=options.device, backbone=options.backbone
        )
    comparisons: list[Comparison] = []
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    with Workers(options.workers or (1 if on_gpu else min(4, torch.get_num_threads()))) as workers:
        for protocol in protocols:
            with tqdm(desc=protocol.name, unit="result", disable=options.progress == "none") as bar:

                def listen(done: int, total: int, bar: tqdm = bar) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                comparisons.append(
                    measure(
                        protocol,
                        options.data,
                        limit=options.limit,
                        device=options.device,
                        backbone=options.backbone,
                        progress=listen,
                        workers=workers if workers.count > 1 else None,
                        earlier=comparisons,
                    )
                )
    command = shlex.join(["monai-sr", *options.words])
    write_all(comparisons, options.out, write_page, command=command, overwrite=options.overwrite)
    print("\n".join(markdown(comparison) for comparison in comparisons))
    print(options.out / PAGE)
    return 0


def _add_boxes(parser: argparse.ArgumentParser) -> None:
    ways = parser.add_subparsers(dest="way", required=True, metavar="WAY")
    out = ways.add_parser(
        "to-dicom", help="boxes as a report (TID 1500) in the study of their image", epilog=EXIT_CODES
    )
    out.add_argument("image", type=Path, metavar="IMAGE", help="DICOM file, series folder or zip")
    out.add_argument("boxes", type=Path, metavar="BOXES", help=".csv, as the boxes.csv of a data set, or .json")
    out.add_argument("out", type=Path, metavar="OUT", help="the report to write")
    out.add_argument("--rows-of", metavar="NAME", help="use the boxes whose image is NAME")
    out.add_argument(
        "--result", type=Path, metavar="IMAGE", help="the image super-resolved, if boxes have figures of it"
    )
    out.add_argument("--in-pixels", action="store_true", help="corners in pixels also where CT lies in the patient")
    out.set_defaults(run=_boxes_to_dicom)
    back = ways.add_parser("from-dicom", help="read boxes from any TID 1500 report", epilog=EXIT_CODES)
    back.add_argument("report", type=Path, metavar="SR", help="Structured Report by TID 1500")
    back.add_argument("out", type=Path, metavar="OUT", help=".csv or .json to write")
    back.add_argument("--image", type=Path, help="of the boxes: checks them, and counts their slices")
    back.set_defaults(run=_boxes_from_dicom)
    for way in (out, back):
        way.add_argument("--overwrite", action="store_true", help="replace an older file")


def _boxes_to_dicom(options: argparse.Namespace) -> int:
    from monai_sr_bundle.boxes.box_files import boxes_to_dicom

    count = boxes_to_dicom(
        options.image,
        options.boxes,
        options.out,
        rows_of=options.rows_of,
        result=options.result,
        in_patient=not options.in_pixels,
        overwrite=options.overwrite,
    )
    print(f"{options.out}: {count} box{'es' * (count != 1)}")
    return 0


def _boxes_from_dicom(options: argparse.Namespace) -> int:
    from monai_sr_bundle.boxes.box_files import boxes_from_dicom

    count = len(boxes_from_dicom(options.report, options.out, image=options.image, overwrite=options.overwrite))
    print(f"{options.out}: {count} box{'es' * (count != 1)}")
    return 0


def _add_pack(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME")
    parser.add_argument("out", type=Path, metavar="OUT", help="folder to make the bundle's folder in")
    parser.add_argument("--overwrite", action="store_true", help="replace an older packed bundle")
    parser.set_defaults(run=_pack)


def _pack(options: argparse.Namespace) -> int:
    from monai_sr_bundle.packing.pack import pack

    print(pack(options.name, options.out, overwrite=options.overwrite))
    return 0


def _add_verify(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dir", type=Path, metavar="DIR", help="a packed bundle")
    parser.set_defaults(run=_verify)


def _verify(options: argparse.Namespace) -> int:
    from monai_sr_bundle.packing.verify import verify

    failed = 0
    for check in verify(options.dir):
        print(f"{'ok  ' if check.passed else 'FAIL'} {check.name}{'' if check.passed else ': ' + check.message}")
        failed += not check.passed
    return 4 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
