"""`monai-sr calibrate`: make error bars hold for the images of a site."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.cli.options import add_data_options, add_progress_option, add_runtime_options
from monai_sr_bundle.cli.progress_bar import progress_bar


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr calibrate`."""
    parser.add_argument("name", metavar="NAME", help="name or folder of a bundle with error bars")
    add_data_options(parser, "images of the site, with a manifest")
    parser.add_argument("--out", type=Path, metavar="FILE", help="file to write (default: calibration.json here)")
    parser.add_argument(
        "--split", choices=("train", "val", "test", "all"), default="val", help="split of the manifest (default val)"
    )
    parser.add_argument(
        "--alpha", type=float, default=0.1, help="share of pixels that may lie outside their error bar (default 0.1)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="use N images, evenly spread; 50 to 100 are enough")
    parser.add_argument(
        "--texture",
        nargs="+",
        type=float,
        metavar="T",
        help="calibrate for each of these textures (flows only)",
    )
    parser.add_argument(
        "--steps",
        nargs="+",
        type=int,
        metavar="N",
        help="calibrate for each of these numbers of steps (diffusion models and flows only)",
    )
    parser.add_argument(
        "--samples",
        type=int,
        metavar="N",
        help="number of samples to draw; the result is their mean (diffusion models only)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an older calibration")
    add_progress_option(parser)
    add_runtime_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr calibrate` and return its exit code."""
    from monai_sr_bundle.calibrate.calibrate import calibrate
    from monai_sr_bundle.images.staging import require_free
    from monai_sr_bundle.inferers.sampler_options import SamplerOptions
    from monai_sr_bundle.uncertainty.calibration import FILE

    out = options.out or Path(FILE)
    require_free(out, overwrite=options.overwrite)
    with progress_bar("measuring", enabled=options.progress == "bar") as progress:
        calibration = calibrate(
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
    calibration.write(out)
    print(
        f"{calibration.bundle} {calibration.version} | "
        f"{calibration.split} split{'s' * (calibration.split == 'all')} of {calibration.data}: "
        f"{calibration.images} images of {calibration.patients} patient{'s' * (calibration.patients != 1)} | "
        f"{calibration.operator}"
    )
    for entry in calibration.entries:
        sampling = f"{entry.sampling.words}: " if entry.sampling else f"x{entry.scale}: " if entry.scale else ""
        guaranteed = calibration.guaranteed_percent(entry)
        few = "" if guaranteed is None else f", guaranteed on average over further patients: {guaranteed:g} %"
        print(
            f"{sampling}factor {entry.factor:.3g} covers {100 * entry.coverage:.1f} % of the pixels here "
            f"(made to hold: {calibration.coverage_percent:g} %{few}), error bars of +-{100 * entry.half_width:.2f} % "
            "of the window"
        )
    print(f"written: {out}")
    return 0
