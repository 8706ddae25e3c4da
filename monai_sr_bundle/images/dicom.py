"""DICOM in and out: the four names the rest of the package uses."""

from monai_sr_bundle.images.dicom_file import is_dicom, series_key
from monai_sr_bundle.images.dicom_read import read_dicom
from monai_sr_bundle.images.dicom_write import write_dicom

__all__ = ["is_dicom", "read_dicom", "series_key", "write_dicom"]
