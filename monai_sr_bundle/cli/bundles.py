"""`monai-sr bundles`, `export`, `pack`, `sign` and `verify`: list, release, pack and sign bundles."""

from __future__ import annotations

import argparse
from pathlib import Path

from monai_sr_bundle.cli.lines import one_line
from monai_sr_bundle.errors import InputError


def add_list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr bundles`."""
    parser.add_argument(
        "--variants", action="store_true", help="also list the variants kept for comparison, which only a clone has"
    )
    parser.set_defaults(run=run_list)


def run_list(options: argparse.Namespace) -> int:
    """Run `monai-sr bundles` and return its exit code."""
    from monai_sr_bundle.shipped_bundles import all_bundles, all_variants, is_default

    rows = [("name", "modality", "scale", "parameters", "licence", "what for")]
    for shipped in all_bundles():
        for bundle in (shipped, *(all_variants(shipped) if options.variants else ())):
            name = f"{bundle.name} (default)" if is_default(bundle) else bundle.name
            parameters = f"{bundle.parameters:,}" if bundle.parameters else "none"
            licence = str(bundle.metadata["copyright"]).rsplit(", ", 1)[-1]
            purpose = str(bundle.metadata["description" if bundle.is_variant else "task"])
            scales = ", ".join(f"x{scale}" for scale in bundle.scales)
            rows.append((name, bundle.modality, scales, parameters, licence, purpose))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    return 0


def add_export_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr export`."""
    parser.add_argument("name", metavar="NAME", help="name or source folder of a bundle")
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="put this model.pt of `monai-sr train` into the bundle, and remove the error bars, calibration.json and "
        "learnt_from.txt of other weights (default: keep its weights, write the ONNX files)",
    )
    source.add_argument(
        "--error-bars",
        type=Path,
        metavar="FILE",
        help="put this error_bars.pt of `monai-sr train --stage error_bars` into the bundle, and remove the "
        "calibration.json of earlier ones",
    )
    source.add_argument(
        "--learnt-from", type=Path, metavar="DIR", help="record what the images were like that it was trained on"
    )
    parser.set_defaults(run=run_export)


def run_export(options: argparse.Namespace) -> int:
    """Run `monai-sr export` and return its exit code."""
    from monai_sr_bundle.packing.release import release, release_error_bars, release_learnt_from

    if options.learnt_from:
        lines = release_learnt_from(options.name, options.learnt_from)
    elif options.error_bars:
        lines = release_error_bars(options.name, options.error_bars)
    else:
        lines = release(options.name, options.weights)
    print("\n".join(lines))
    return 0


def add_pack_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr pack`."""
    parser.usage = "%(prog)s [--overwrite] NAME OUT, or %(prog)s [--overwrite] --zoo DIR NAME..."
    parser.add_argument(
        "names",
        nargs="+",
        metavar="NAME",
        help="name or source folder of a bundle, then the folder OUT for the packed bundle, OUT/NAME",
    )
    parser.add_argument(
        "--zoo",
        type=Path,
        metavar="DIR",
        help="lay out a pull request to the model zoo in its checkout or a new folder: bundles, tests, list entries",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace what was packed before")
    parser.set_defaults(run=run_pack)


def run_pack(options: argparse.Namespace) -> int:
    """Run `monai-sr pack` and return its exit code."""
    if options.zoo is not None:
        from monai_sr_bundle.packing.zoo import pack_for_zoo

        for line in pack_for_zoo(options.names, options.zoo, overwrite=options.overwrite):
            print(line)
        return 0
    from monai_sr_bundle.packing.pack import pack

    if len(options.names) != 2:
        raise InputError(
            f"pack takes NAME OUT, not {' '.join(options.names)}. Several bundles: `pack --zoo DIR NAME...`."
        )
    print(pack(options.names[0], Path(options.names[1]), overwrite=options.overwrite))
    return 0


def add_sign_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr sign`."""
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder of a packed bundle")
    parser.add_argument(
        "--private-key",
        type=Path,
        required=True,
        metavar="FILE",
        help="your private key in PEM (P-256, P-384 or P-521); a password is asked for",
    )
    parser.set_defaults(run=run_sign)


def run_sign(options: argparse.Namespace) -> int:
    """Run `monai-sr sign` and return its exit code."""
    from getpass import getpass

    from monai_sr_bundle.packing.signing import sign

    print(sign(options.dir, options.private_key, lambda: getpass(f"Password of {options.private_key}: ")))
    return 0


def add_verify_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr verify`."""
    parser.description = (
        "Check a packed bundle as the model zoo does. This runs its configs, which may hold any program: check one "
        "of others with --signature, or read its configs first."
    )
    parser.add_argument("dir", type=Path, metavar="DIR", help="folder of a packed bundle")
    parser.add_argument(
        "--signature",
        type=Path,
        metavar="KEY",
        help="first check the bundle's signature with this public key (PEM), and stop if it does not fit",
    )
    parser.set_defaults(run=run_verify)


def run_verify(options: argparse.Namespace) -> int:
    """Run `monai-sr verify` and return its exit code."""
    from monai_sr_bundle.bundles import code_files, code_sha256
    from monai_sr_bundle.packing.signing import SIGNATURE, check_signature

    if options.signature is not None:
        check_signature(options.dir, options.signature)  # before anything of the bundle runs
        print(f"ok   signature by {options.signature}", flush=True)
    import jsonschema  # noqa: F401  # a missing one is no fault of the bundle
    import onnx  # noqa: F401
    import torch  # noqa: F401
    from monai_sr_bundle.packing.verify import verify

    failed = 0
    for check in verify(options.dir):
        print(one_line(check))
        failed += not check.passed
    package = options.dir / "monai_sr_bundle"
    print(f"SHA-256 of the code: {code_sha256(package, code_files(package))}")
    if options.signature is None:
        signed = (options.dir / SIGNATURE).is_file()
        print("Signature not checked: name the public key with --signature." if signed else "Not signed.")
    return 4 if failed else 0
