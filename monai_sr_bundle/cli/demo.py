"""`monai-sr demo`: the first thing a visitor runs, a CT slice and a drawn radiograph or their own image, enlarged."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from monai_sr_bundle.cli.options import add_runtime_options
from monai_sr_bundle.errors import BundleError

PHANTOM_SIZE = 256
PHANTOM_SPACING_MM = 1.6
"""A 256-pixel film of 41 cm, about the pixel size that the radiograph model was trained on."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `monai-sr demo`."""
    parser.add_argument("out", type=Path, metavar="OUT", help="folder for the results")
    parser.add_argument("--image", type=Path, metavar="IMAGE", help="enlarge your image instead")
    add_runtime_options(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Run `monai-sr demo` and return its exit code.

    Without an image of the visitor, the CT slice that ships inside pydicom and a phantom are enlarged. Results of an
    earlier run are replaced, other files beside the visitor's image are not.

    Raises:
        BundleError: pydicom was installed without its CT slice.
    """
    from monai_sr_bundle.cli.console import Terminal
    from monai_sr_bundle.cli.jobs import Job
    from monai_sr_bundle.cli.lines import one_line
    from monai_sr_bundle.datasets.phantom import write_phantom_dicom
    from pydicom.data import get_testdata_file

    with tempfile.TemporaryDirectory() as folder:
        if options.image is not None:
            inputs = [options.image]
        else:
            slice_path = get_testdata_file("CT_small.dcm", download=False)
            if slice_path is None:
                raise BundleError(
                    "pydicom's CT_small.dcm is missing. Install pydicom again, or name your image with --image."
                )
            phantom = Path(folder) / "drawn_radiograph.dcm"
            write_phantom_dicom(phantom, size=PHANTOM_SIZE, spacing_mm=PHANTOM_SPACING_MM)
            inputs = [Path(str(slice_path)), phantom]
        job = Job(
            inputs, f"{options.out}/", backend=options.backend, device=options.device, preview=True, report=True,
            overwrite=options.image is None, replace_results=True,
        )  # fmt: skip
        terminal = Terminal()
        errors = job.run(terminal)
    pages = [path for path in terminal.written if path.name.endswith((".preview.png", ".report.html"))]
    if pages:
        print("\nLook at the pictures and reports:")
    for path in pages:
        print(one_line(f"  {path}"))
    return errors[0].exit_code if errors else 0
