"""What pyproject.toml cannot say: what is installed inside the package, and what a wheel leaves out.

`configs/` are the bundles, but for their variants, which are compared in a checkout alone, and but for the ONNX files
of bundles that no page advises, which `monai-sr export` writes again (the wheel may have 80 MB). `monailabel_app/` is
the server of `monai-sr label`, which needs the extra [label]; a wheel has no parts for extras, and these are some small
modules.

`MONAI_SR_WHEEL=viewer` makes a wheel without weights as .pt, which only PyTorch reads. It has "+viewer" behind its
version, and runs the bundles with ONNX files on ONNX Runtime alone.
"""

import os
import shutil
from pathlib import PurePath

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

FOR_VIEWERS = os.environ.get("MONAI_SR_WHEEL") == "viewer"
WITHOUT_ONNX = ("chest_ct_edsr_x4", "chest_ct_residual_flow_x4", "chest_xray_edsr_x4")


def is_left_out(file):
    """Return whether a wheel goes without a weights file: without .pt for viewers, else without some as ONNX."""
    if FOR_VIEWERS:
        return file.suffix == ".pt"
    return file.suffix == ".onnx" and file.parent.name in WITHOUT_ONNX


class Build(build_py):
    """Copies the modules and data of a wheel."""

    def run(self):
        if not self.editable_mode:
            shutil.rmtree(self.build_lib, ignore_errors=True)  # files of an earlier build would get into the wheel
        super().run()

    def find_data_files(self, package, src_dir):
        files = super().find_data_files(package, src_dir)
        return [file for file in files if "variants" not in PurePath(file).parts and not is_left_out(PurePath(file))]


INSIDE = {
    "configs": "configs",
    "monailabel_app": "monailabel_app",
    "monailabel_app.labelling": "monailabel_app/labelling",
    "monailabel_app.labelling.formats": "monailabel_app/labelling/formats",
}
"""Packages below monai_sr_bundle, and their folders."""

setup(
    packages=[
        *find_packages(include=["monai_sr_bundle", "monai_sr_bundle.*"]),
        *(f"monai_sr_bundle.{name}" for name in INSIDE),
    ],
    package_dir={f"monai_sr_bundle.{name}": folder for name, folder in INSIDE.items()},
    cmdclass={"build_py": Build},
    options={"egg_info": {"tag_build": "+viewer"}} if FOR_VIEWERS else {},
)
