"""What pyproject.toml cannot say: what is installed inside the package, and what a wheel for viewers leaves out.

`configs/` are the bundles. The parts of `slicer_extension/` are the page of `monai-sr view`, which needs the extra
[web]; a wheel has no parts for extras, and these are some small modules.

`MONAI_SR_WHEEL=viewer` makes a wheel without what only PyTorch reads: weights as .pt, and variants, which have no
others. It is a third as large, has "+viewer" behind its version, and runs on ONNX Runtime alone.
"""

import os
import shutil
from pathlib import PurePath

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py


class ViewerBuild(build_py):
    """Copies the data that ONNX Runtime or a reader needs."""

    def run(self):
        shutil.rmtree(self.build_lib, ignore_errors=True)  # what a build of the whole wheel has left would come along
        super().run()

    def find_data_files(self, package, src_dir):
        found = super().find_data_files(package, src_dir)
        return [file for file in found if not file.endswith(".pt") and "variants" not in PurePath(file).parts]


INSIDE = {
    "configs": "configs",
    "slicer_extension.SuperResolution.SuperResolutionLib": "slicer_extension/SuperResolution/SuperResolutionLib",
    "slicer_extension.web.SuperResolutionWeb": "slicer_extension/web/SuperResolutionWeb",
}
"""Packages below monai_sr_bundle, and their folders."""

FOR_VIEWERS = {"cmdclass": {"build_py": ViewerBuild}, "options": {"egg_info": {"tag_build": "+viewer"}}}

setup(
    packages=[
        *find_packages(include=["monai_sr_bundle", "monai_sr_bundle.*"]),
        *(f"monai_sr_bundle.{name}" for name in INSIDE),
    ],
    package_dir={f"monai_sr_bundle.{name}": folder for name, folder in INSIDE.items()},
    **(FOR_VIEWERS if os.environ.get("MONAI_SR_WHEEL") == "viewer" else {}),
)
