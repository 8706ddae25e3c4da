"""DICOM files for tests: conformant CT slices, CR, DX and captures of a phantom that never was a patient."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from monai_sr_bundle.images.image import Image
from monai_sr_bundle.images.provenance import Provenance
from pydicom import uid
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.valuerep import format_number_as_ds

STUDY, SERIES, FRAME_OF_REFERENCE = "2.25.1001", "2.25.1002", "2.25.1003"
TILTED = np.linalg.qr(np.array([[0.9, 0.2, -0.3], [-0.1, 0.95, 0.25], [0.3, -0.2, 0.9]]))[0]
TILTED = TILTED * np.sign(np.diag(TILTED))
"""Oblique unit vectors as columns: along the columns index, the rows index, and the slices."""


def phantom(rows: int = 24, columns: int = 20, slices: int = 1, dtype: str = "int16", bright: int = 1000) -> np.ndarray:
    """``[slices, rows, columns]``: zeros with one bright block off the middle, so that its centroid is a landmark."""
    pixels = np.zeros((slices, rows, columns), dtype)
    some_slices = slice(slices // 3, slices // 3 + max(slices // 2, 1))
    pixels[some_slices, rows // 4 : rows // 2, columns // 2 : columns // 2 + 5] = bright
    return pixels


def provenance(**changes: Any) -> Provenance:
    """The provenance of a test's result: x4 in plane by a regression network."""
    facts: dict[str, Any] = {
        "bundle": "chest_test_x4", "version": "1.2.3", "weights_sha256": "0123456789abcdef" * 4,
        "manufacturer": "Test Makers", "scale_zyx": (1, 4, 4), "operator": "area_x4", "generative": False,
        "backend": "onnx", "device": "cpu", "seed": 7, "roi_xyxy": None,
        "created": datetime.fromisoformat("2026-11-20T10:11:12+01:00"),
    }  # fmt: skip
    return Provenance(**(facts | changes))


def ct_slice(
    file: Path,
    pixels: np.ndarray | None = None,
    position: Sequence[float] = (-100.0, 50.0, -30.0),
    orientation: Sequence[float] = (1, 0, 0, 0, 1, 0),
    spacing: Sequence[float] = (0.7, 0.7),
    number: int = 1,
    **attributes: Any,
) -> Path:
    """One CT Image Storage file of a phantom; `spacing` is (row, column).

    `attributes` replace or, when None, remove elements.
    """
    dataset = _patient(uid.CTImageStorage, f"{SERIES}.{number}")
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    dataset.Modality = "CT"
    dataset.SeriesDescription = "Chest 2.5 soft"
    dataset.FrameOfReferenceUID, dataset.PositionReferenceIndicator = FRAME_OF_REFERENCE, ""
    dataset.KVP, dataset.SliceThickness, dataset.PatientPosition = "120", "2.5", "HFS"
    dataset.AcquisitionNumber, dataset.InstanceNumber = 1, number
    dataset.ImagePositionPatient = [format_number_as_ds(float(v)) for v in position]
    dataset.ImageOrientationPatient = [format_number_as_ds(float(v)) for v in orientation]
    dataset.PixelSpacing = [format_number_as_ds(float(v)) for v in spacing]
    dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "-1024", "HU"
    dataset.WindowCenter, dataset.WindowWidth = "-600", "1500"
    return _save(dataset, phantom()[0] if pixels is None else pixels, file, attributes)


def ct_series(
    folder: Path,
    volume: np.ndarray,
    axes: np.ndarray = TILTED,
    spacing: Sequence[float] = (0.9, 0.6),
    step: Sequence[float] | None = None,
    first: Sequence[float] = (-100.0, 50.0, -30.0),
    **attributes: Any,
) -> list[Path]:
    """A CT series, oblique and with oblong pixels by default, whose file names hide the order of its slices.

    `axes` are unit vectors as columns; `step` leads from slice to slice (default 2.5 mm along the third axis).
    """
    folder.mkdir(parents=True, exist_ok=True)
    along = 2.5 * axes[:, 2] if step is None else np.asarray(step, float)
    files = []
    for index, pixels in enumerate(volume):
        name = folder / f"{(index * 7) % 11:02d}_{index}.dcm"
        position = np.asarray(first) + index * along
        turn = [*axes[:, 0], *axes[:, 1]]
        files.append(ct_slice(name, pixels, position, turn, spacing, number=len(volume) - index, **attributes))
    return sorted(files)


def radiograph(file: Path, pixels: np.ndarray | None = None, modality: str = "DX", **attributes: Any) -> Path:
    """One DX (For Presentation) or CR file of a phantom: 12 bits, MONOCHROME1, 0.2 mm between rows, 0.1 columns."""
    pixels = phantom(dtype="uint16")[0] if pixels is None else pixels
    storage = {"DX": uid.DigitalXRayImageStorageForPresentation, "CR": uid.ComputedRadiographyImageStorage}[modality]
    dataset = _patient(storage, "2.25.1010")
    dataset.Modality = modality
    dataset.SeriesDescription = "Thorax pa"
    dataset.ViewPosition = "PA"
    dataset.AcquisitionNumber = dataset.InstanceNumber = 1
    dataset.PatientOrientation = ["L", "F"]
    dataset.ImagerPixelSpacing = ["0.2", "0.1"]
    dataset.WindowCenter, dataset.WindowWidth = "2048", "4096"
    if modality == "DX":
        dataset.ImageType = ["ORIGINAL", "PRIMARY", ""]
        dataset.PresentationIntentType = "FOR PRESENTATION"
        dataset.ImageLaterality = "U"
        dataset.AnatomicRegionSequence = [_code("43799004", "SCT", "Thorax")]
        dataset.AcquisitionContextSequence = []
        dataset.ViewCodeSequence = [_code("399348003", "SCT", "postero-anterior")]
        dataset.ViewCodeSequence[0].ViewModifierCodeSequence = []
        dataset.DetectorType, dataset.PositionerType = "SCINTILLATOR", ""
        dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "0", "US"
        dataset.PresentationLUTShape = "INVERSE"
        dataset.LossyImageCompression, dataset.BurnedInAnnotation = "00", "NO"
    else:
        dataset.ImageType = ["ORIGINAL", "PRIMARY"]
    photometric = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    return _save(dataset, pixels, file, photometric | attributes)


def capture(file: Path, pixels: np.ndarray, **attributes: Any) -> Path:
    """A Secondary Capture; with more than one frame the multi-frame 8 or 16 bit grey class."""
    frames = 1 if pixels.ndim == 2 else len(pixels)
    multi = (
        uid.MultiFrameGrayscaleByteSecondaryCaptureImageStorage
        if pixels.itemsize == 1
        else uid.MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    )
    dataset = _patient(uid.SecondaryCaptureImageStorage if frames == 1 else multi, "2.25.1020")
    dataset.Modality, dataset.ConversionType = "DX", "WSD"
    dataset.InstanceNumber, dataset.PatientOrientation = 1, ["L", "F"]
    if frames > 1:
        dataset.NumberOfFrames, dataset.FrameIncrementPointer = frames, 0x00182001
        dataset.PageNumberVector = list(range(1, frames + 1))
        dataset.BurnedInAnnotation, dataset.PresentationLUTShape = "NO", "IDENTITY"
        dataset.RescaleSlope, dataset.RescaleIntercept, dataset.RescaleType = "1", "0", "US"
    return _save(dataset, pixels, file, attributes)


def _patient(sop_class: str, instance: str) -> Dataset:
    dataset = Dataset()
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, instance
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.PatientName, dataset.PatientID = "Phantom^Block", "PHANTOM"
    dataset.PatientBirthDate = dataset.PatientSex = dataset.AccessionNumber = dataset.ReferringPhysicianName = ""
    dataset.Manufacturer, dataset.BodyPartExamined = "Phantom Works", "CHEST"
    dataset.StudyDate = dataset.SeriesDate = dataset.ContentDate = dataset.AcquisitionDate = "20260101"
    dataset.StudyTime = dataset.SeriesTime = dataset.ContentTime = dataset.AcquisitionTime = "120000"
    dataset.StudyID, dataset.SeriesNumber = "1", 3
    return dataset


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = value, scheme, meaning
    return code


def _save(dataset: Dataset, pixels: np.ndarray, file: Path, attributes: dict[str, Any]) -> Path:
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    stored = pixels.tobytes()
    dataset.add_new("PixelData", "OB" if pixels.itemsize == 1 else "OW", stored + b"\0" * (len(stored) % 2))
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.file_meta.TransferSyntaxUID = attributes.pop("TransferSyntaxUID", uid.ExplicitVRLittleEndian)
    for keyword, value in attributes.items():
        if value is None:
            del dataset[keyword]
        else:
            setattr(dataset, keyword, value)
    dataset.save_as(file, enforce_file_format=True)
    return file


def zipped(path: Path, files: Sequence[Path] | Mapping[str, Path]) -> Path:
    """A zip of files, under their own names or under those of a mapping."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, file in files.items() if isinstance(files, Mapping) else ((file.name, file) for file in files):
            archive.write(file, name)
    return path


def enlarged(image: Image, scale_zyx: Sequence[int] = (1, 4, 4)) -> Image:
    """Return the image with every sample repeated, on the finer grid, in place of an engine's result."""
    pixels = np.kron(image.pixels, np.ones(scale_zyx, image.pixels.dtype))
    return replace(image, pixels=pixels, grid=image.grid.scaled(scale_zyx))


CALIBRATED = {
    "PixelSpacing": [0.19, 0.09], "PixelSpacingCalibrationType": "GEOMETRY",
    "PixelSpacingCalibrationDescription": "SID over SOD",
}  # fmt: skip
FOR_PROCESSING = {
    "SOPClassUID": uid.DigitalXRayImageStorageForProcessing, "PresentationIntentType": "FOR PROCESSING",
    "WindowCenter": None, "WindowWidth": None,
}  # fmt: skip
SMALL = phantom(9, 11, dtype="uint8", bright=200)[0]
SOURCES = {
    "ct": ct_slice,
    "ct 12 bit unsigned": lambda file: ct_slice(file, phantom(dtype="uint16")[0], BitsStored=12, HighBit=11),
    "dx": radiograph,
    "dx calibrated": lambda file: radiograph(file, **CALIBRATED),
    "dx for processing": lambda file: radiograph(file, **FOR_PROCESSING),
    "cr": lambda file: radiograph(file, modality="CR"),
    "cr 8 bit odd size": lambda file: radiograph(file, SMALL, "CR", BitsStored=8, HighBit=7),
    "capture": lambda file: capture(file, phantom(dtype="uint8", bright=200)[0]),
    "frames 8 bit": lambda file: capture(file, phantom(slices=3, dtype="uint8", bright=200)),
    "frames 16 bit": lambda file: capture(file, phantom(slices=3, dtype="uint16")),
}
"""Functions that write a file of each kind which is read, and return its path."""
