"""What pyproject.toml cannot say: the folder `configs/` is installed inside the package."""

from setuptools import find_packages, setup

setup(
    packages=[*find_packages(include=["monai_sr_bundle", "monai_sr_bundle.*"]), "monai_sr_bundle.configs"],
    package_dir={"monai_sr_bundle.configs": "configs"},
)
