"""`monai-sr evaluate` and `monai-sr benchmark`: measure one bundle, or compare methods."""

from __future__ import annotations

import argparse
import math
import sys
from contextlib import suppress
from pathlib import Path
from typing import Literal

from monai_sr_bundle.cli.options import (
    add_data_options,
    add_progress_option,
    add_runtime_options,
    add_sampler_options,
    positive_count,
)
from monai_sr_bundle.cli.progress_bar import progress_bar


def add_evaluate_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr evaluate`."""
    parser.add_argument("name", metavar="NAME", help="name or folder of a bundle")
    add_data_options(parser, "folder of the prepared data sets")
    parser.add_argument(
        "--split", default="test", choices=("train", "val", "test"), help="split of the manifest (default test)"
    )
    parser.add_argument("--limit", type=positive_count, metavar="N", help="measure N images, evenly spread")
    parser.add_argument(
        "--scale",
        type=positive_count,
        metavar="N",
        help="enlarge N times, for a bundle of several scales (default: its own)",
    )
    parser.add_argument("--operator", metavar="NAME", help="degradation of the images (default: the bundle's)")
    parser.add_argument(
        "--turned", type=int, choices=(0, 90, 180, 270), default=0, help="rotate the images first, by these degrees"
    )
    parser.add_argument("--csv", type=Path, metavar="FILE", help="also write the results of every image")
    parser.add_argument("--overwrite", action="store_true", help="replace an older file of --csv")
    parser.add_argument(
        "--at-least",
        type=_gain_or_metadata,
        metavar="DB",
        help="fail if the mean gain in PSNR over bicubic is lower; `metadata` stands for the released result",
    )
    add_runtime_options(parser)
    add_sampler_options(parser)
    parser.set_defaults(run=run_evaluate)


def _gain_or_metadata(text: str) -> float | Literal["metadata"]:
    if text == "metadata":
        return "metadata"
    with suppress(ValueError):
        if math.isfinite(gain := float(text)):
            return gain
    raise argparse.ArgumentTypeError(f"{text!r}: expected a number of dB, or metadata.")


def run_evaluate(options: argparse.Namespace) -> int:
    """Run `monai-sr evaluate` and return its exit code."""
    from monai_sr_bundle.benchmark.quality import evaluate, least_gain
    from monai_sr_bundle.images.staging import require_free
    from monai_sr_bundle.inferers.sampler_options import SamplerOptions

    if options.csv:
        require_free(options.csv, overwrite=options.overwrite)
    expected = options.at_least
    if expected == "metadata":
        expected = least_gain(options.name, options.scale)
    quality = evaluate(
        options.name,
        options.data,
        options.split,
        sets=options.sets,
        limit=options.limit,
        scale=options.scale,
        operator=options.operator,
        rotation_degrees=options.turned,
        backend=options.backend,
        device=options.device,
        options=SamplerOptions(
            steps=options.steps,
            samples=options.samples,
            texture=options.texture,
            sampler=options.sampler,
            strength=options.strength,
        ),
    )
    print(quality.table())
    if options.csv:
        quality.write_csv(options.csv)
    if expected is None:
        return 0
    gain = quality.gain("psnr").mean
    if not gain >= expected:  # so that a gain which is no number fails too
        print(
            f"monai-sr: error: {options.name} gains {gain:.2f} dB over bicubic, expected at least {expected:.2f} dB.",
            file=sys.stderr,
        )
        return 1
    print(f"Gain over bicubic: {gain:.2f} dB, expected at least {expected:.2f} dB.")
    return 0


def add_benchmark_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr benchmark`."""
    kinds = parser.add_subparsers(dest="kind", required=True, metavar="KIND")
    for trust, name, summary in (
        (False, "quality", "compare fidelity, texture and cost of every method on the same images"),
        (True, "trust", "compare consistency, error bars, invented and lost nodules on the same images"),
    ):
        _add_comparison_arguments(kinds.add_parser(name, help=summary), trust=trust)
    _add_speed_arguments(kinds.add_parser("speed", help="compare time and memory of the runtimes on the processor"))
    _add_memory_arguments(kinds.add_parser("memory", help="measure what long runs and large images hold in memory"))


def _add_memory_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the table")
    for name, number, what in (
        ("images", 300, "films of one process"),
        ("slices", 300, "slices of a CT"),
        ("side", 4096, "rows and columns of a film"),
    ):
        parser.add_argument(
            f"--{name}", type=int, default=number, metavar="N", help=f"{what} (default {number}; 0: not measured)"
        )
    parser.add_argument("--overwrite", action="store_true", help="replace an older benchmark")
    add_progress_option(parser)
    add_runtime_options(parser)
    parser.set_defaults(run=run_memory)


def run_memory(options: argparse.Namespace) -> int:
    """Run `monai-sr benchmark memory` and return its exit code."""
    from monai_sr_bundle.benchmark.memory import FOLDER, measure_memory, memory_markdown, write_memory
    from monai_sr_bundle.images.staging import require_free

    require_free(options.out / FOLDER, overwrite=options.overwrite)
    with progress_bar("memory", "run", enabled=options.progress == "bar") as listen:
        measurements = measure_memory(
            options.images,
            options.slices,
            options.side,
            ["--backend", options.backend, "--device", options.device],
            listen,
        )
    write_memory(measurements, options.out, overwrite=options.overwrite)
    print(memory_markdown(measurements), end="")
    exceeded = [each.what for each in measurements if not each.passed]
    if exceeded:
        print(f"monai-sr: error: more memory than the bound: {'; '.join(exceeded)}.", file=sys.stderr)
    return 1 if exceeded else 0


def _add_speed_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for the table")
    parser.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder of the prepared data sets, for the PSNR (default: drawn images)",
    )
    parser.add_argument(
        "--protocol", default="chest_xray_speed", metavar="NAME", help="name or YAML file of a protocol"
    )
    parser.add_argument("--bundles", nargs="+", metavar="NAME", help="measure these methods and the reference only")
    parser.add_argument(
        "--sizes", nargs="+", type=positive_count, metavar="N", help="sides of inputs (default 64 256 512 1024)"
    )
    parser.add_argument(
        "--threads", nargs="+", type=positive_count, metavar="N", help="numbers of CPU threads (default 1 2)"
    )
    parser.add_argument("--rounds", type=positive_count, metavar="N", help="timed runs of each row (default 5)")
    parser.add_argument(
        "--limit", type=positive_count, metavar="N", help="number of images of --data (default: the protocol's)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older benchmark")
    add_progress_option(parser)
    parser.set_defaults(run=run_speed)


def run_speed(options: argparse.Namespace) -> int:
    """Run `monai-sr benchmark speed` and return its exit code."""
    import torch  # noqa: F401  # a missing one is found before the measuring
    from monai_sr_bundle.benchmark.protocol import read_protocol
    from monai_sr_bundle.benchmark.speed import ROUNDS, SIZES, THREADS, measure_speed, speed_markdown, write_speed
    from monai_sr_bundle.images.staging import require_free

    protocol = read_protocol(options.protocol)
    require_free(options.out / protocol.name, overwrite=options.overwrite)
    if options.bundles:
        protocol = protocol.only(options.bundles)
    with progress_bar(protocol.name, "cell", enabled=options.progress == "bar") as listen:
        comparison = measure_speed(
            protocol,
            options.data,
            sizes=options.sizes or SIZES,
            threads=options.threads or THREADS,
            rounds=options.rounds or ROUNDS,
            limit=options.limit,
            progress=listen,
        )
    write_speed(comparison, options.out, overwrite=options.overwrite)
    print(speed_markdown(comparison))
    return 0


def _add_comparison_arguments(parser: argparse.ArgumentParser, *, trust: bool) -> None:
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder of the prepared data sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder for tables and page")
    parser.add_argument(
        "--protocol", nargs="+", metavar="NAME", help="names or YAML files of comparisons (default: all)"
    )
    parser.add_argument("--bundles", nargs="+", metavar="NAME", help="compare these methods and the reference only")
    parser.add_argument(
        "--limit", type=positive_count, metavar="N", help="measure N images of each data set, evenly spread"
    )
    parser.add_argument("--backbone", type=Path, metavar="FILE", help="weights for the SqueezeNet feature distance")
    parser.add_argument(
        "--calibration",
        type=Path,
        metavar="FILE",
        help="take this calibration of the error bars, in protocols of films and scans (default: the bundle's own)",
    )
    parser.add_argument(
        "--device", choices=("auto", "cpu", "cuda"), default="auto", help="default auto: a GPU where there is one"
    )
    parser.add_argument(
        "--workers",
        type=positive_count,
        metavar="N",
        help="number of processes (default: one per core, at most 4; 1 on a GPU)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older benchmark")
    add_progress_option(parser)
    parser.set_defaults(run=run_benchmark, trust=trust)


def run_benchmark(options: argparse.Namespace) -> int:
    """Run `monai-sr benchmark` and return its exit code."""
    import shlex

    import scipy  # noqa: F401  # the tables need it: a missing one is found before the measuring
    import torch
    from monai_sr_bundle.benchmark.comparison import Comparison
    from monai_sr_bundle.benchmark.comparison_page import page
    from monai_sr_bundle.benchmark.film_measurement import measure_films, require_films
    from monai_sr_bundle.benchmark.film_protocol import FilmProtocol
    from monai_sr_bundle.benchmark.measure import measure, require_measurable
    from monai_sr_bundle.benchmark.protocol_choice import choose_protocols
    from monai_sr_bundle.benchmark.tables import PAGE, AnyComparison, markdown, require_results_folder, write_all
    from monai_sr_bundle.benchmark.workers import Workers
    from monai_sr_bundle.errors import InputError

    require_results_folder(options.out, overwrite=options.overwrite)
    protocols = choose_protocols(options.protocol, options.bundles, trust=options.trust)
    choice = {"limit": options.limit, "device": options.device}
    film_options = {"trust": options.trust, "calibration": options.calibration}
    for protocol in protocols:
        if isinstance(protocol, FilmProtocol):
            require_films(protocol, options.data, **choice, **film_options)
        elif options.calibration is not None:
            raise InputError(
                f"--calibration: protocol {protocol.name} takes the bundles' own error bars. Leave the option out, or "
                "name a protocol of films or scans, such as chest_xray_films."
            )
        else:
            require_measurable(protocol, options.data, backbone=options.backbone, **choice)
    comparisons: list[AnyComparison] = []
    on_gpu = options.device != "cpu" and torch.cuda.is_available()
    with Workers(options.workers or (1 if on_gpu else min(4, torch.get_num_threads()))) as workers:
        for protocol in protocols:
            with progress_bar(protocol.name, "result", enabled=options.progress == "bar") as listen:
                run_options = {**choice, "progress": listen, "workers": workers if workers.count > 1 else None}
                if isinstance(protocol, FilmProtocol):
                    comparisons.append(measure_films(protocol, options.data, **run_options, **film_options))
                    continue
                earlier = [comparison for comparison in comparisons if isinstance(comparison, Comparison)]
                comparisons.append(
                    measure(protocol, options.data, backbone=options.backbone, earlier=earlier, **run_options)
                )
    command = shlex.join(["monai-sr", *options.arguments])
    write_all(comparisons, options.out, page, command=command, overwrite=options.overwrite)
    print("\n".join(markdown(comparison) for comparison in comparisons))
    print(options.out / PAGE)
    return 0
