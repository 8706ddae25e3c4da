"""Boxes in and out of DICOM Structured Reports: the names the rest of the package uses."""

from monai_sr_bundle.images.box import Box, Figures, check_box
from monai_sr_bundle.images.dicom_boxes_read import FoundBoxes, read_boxes
from monai_sr_bundle.images.dicom_boxes_write import write_boxes

__all__ = ["Box", "Figures", "FoundBoxes", "check_box", "read_boxes", "write_boxes"]
