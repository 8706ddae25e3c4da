"""The first thing a visitor runs: a real CT slice and a drawn radiograph, or their own image, enlarged."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pydicom.data import get_testdata_file

from monai_sr_bundle.backends.backend import BackendName, DeviceName
from monai_sr_bundle.cli.console import Terminal, one_line
from monai_sr_bundle.cli.jobs import Job
from monai_sr_bundle.datasets.phantom import write_phantom_dicom
from monai_sr_bundle.errors import BundleError

PHANTOM_SIZE = 256
PHANTOM_SPACING_MM = 1.6
"""A 256-pixel film of 41 cm, about the pixel size the radiograph model was trained on."""


def run_demo(out: Path, image: Path | None, backend: BackendName = "auto", device: DeviceName = "auto") -> int:
    """Enlarge the visitor's image, or the CT slice that ships inside pydicom and a phantom, with preview and report.

    Args:
        out: folder for the results; results of an earlier run are replaced.
        image: the visitor's own.
        backend, device: as `engine.enhance`.

    Returns:
        The exit code.

    Raises:
        BundleError: pydicom came without its CT slice.
    """
    with tempfile.TemporaryDirectory() as folder:
        if image is not None:
            inputs = [image]
        else:
            slice_path = get_testdata_file("CT_small.dcm", download=False)
            if slice_path is None:
                raise BundleError(
                    "pydicom's CT_small.dcm is missing. Install pydicom again, or name your own with --image."
                )
            phantom = Path(folder) / "drawn_radiograph.dcm"
            write_phantom_dicom(phantom, size=PHANTOM_SIZE, spacing_mm=PHANTOM_SPACING_MM)
            inputs = [Path(str(slice_path)), phantom]
        job = Job(inputs, f"{out}/", backend=backend, device=device, preview=True, report=True, overwrite=True)
        terminal = Terminal()
        errors = job.run(terminal)
    shown = [path for path in terminal.written if path.name.endswith((".preview.png", ".report.html"))]
    if shown:
        print("\nLook at the pictures and reports:")
    for path in shown:
        print(one_line(f"  {path}"))
    return errors[0].exit_code if errors else 0
