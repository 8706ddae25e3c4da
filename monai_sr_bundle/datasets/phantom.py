"""A synthetic chest radiograph: no patient, no licence, and the true size of every detail is known.

Shapes are the absorption of tissue along the beam; a saturating curve, like that of film, maps their sum to
brightness. It resembles a chest and is no physical model. Lengths are fractions of the image's width, so the same seed
gives the same chest at every size.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import pairwise
from pathlib import Path

import numpy as np
import pydicom
from monai_sr_bundle.datasets.drawing import Canvas, Point, band, box, ellipse, sigmoid, smooth
from monai_sr_bundle.datasets.make_manifest import write_once
from monai_sr_bundle.datasets.radiograph import encode_png
from monai_sr_bundle.images.dicom_write import code
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import UID, DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian, generate_uid


@dataclass(frozen=True)
class Nodule:
    """A sphere in the lung: centre and diameter as fractions of the image's width, from the top left corner."""

    x: float
    y: float
    diameter: float


NODULES = (
    Nodule(0.245, 0.395, 0.030),
    Nodule(0.335, 0.640, 0.016),
    Nodule(0.775, 0.475, 0.022),
    Nodule(0.690, 0.290, 0.011),
)
BAR_PERIODS = (1 / 48, 1 / 64, 1 / 96, 1 / 128, 1 / 192, 1 / 256)
"""Width of one dark and one bright bar of the pattern at the bottom left, group after group from the top."""

RIGHT_LUNG = (
    (0.345, 0.130), (0.400, 0.150), (0.428, 0.210), (0.436, 0.300), (0.432, 0.400), (0.432, 0.500), (0.428, 0.600),
    (0.424, 0.690), (0.375, 0.668), (0.315, 0.662), (0.250, 0.678), (0.195, 0.712), (0.163, 0.760), (0.150, 0.790),
    (0.146, 0.720), (0.152, 0.600), (0.168, 0.480), (0.196, 0.350), (0.240, 0.230), (0.290, 0.155),
)  # fmt: skip
LEFT_LUNG = (
    (0.655, 0.130), (0.600, 0.150), (0.572, 0.210), (0.566, 0.300), (0.566, 0.400), (0.572, 0.500), (0.580, 0.600),
    (0.590, 0.720), (0.640, 0.706), (0.700, 0.706), (0.760, 0.722), (0.805, 0.752), (0.838, 0.795), (0.850, 0.815),
    (0.853, 0.740), (0.848, 0.600), (0.832, 0.480), (0.804, 0.350), (0.760, 0.230), (0.710, 0.155),
)  # fmt: skip
BODY = (
    (0.385, -0.08), (0.380, 0.020), (0.345, 0.062), (0.240, 0.092), (0.120, 0.110), (0.040, 0.150), (-0.06, 0.230),
    (-0.10, 0.480), (0.020, 0.500), (0.062, 0.560), (0.078, 0.660), (0.088, 0.760), (0.100, 0.880), (0.106, 1.10),
    (0.894, 1.10), (0.900, 0.880), (0.912, 0.760), (0.922, 0.660), (0.938, 0.560), (0.980, 0.500), (1.10, 0.480),
    (1.06, 0.230), (0.960, 0.150), (0.880, 0.110), (0.760, 0.092), (0.655, 0.062), (0.620, 0.020), (0.615, -0.08),
)  # fmt: skip
HEART = (
    (0.470, 0.350), (0.445, 0.440), (0.418, 0.530), (0.410, 0.620), (0.428, 0.690), (0.490, 0.735), (0.580, 0.745),
    (0.660, 0.732), (0.716, 0.700), (0.722, 0.660), (0.694, 0.590), (0.650, 0.510), (0.606, 0.430), (0.578, 0.375),
    (0.540, 0.345),
)  # fmt: skip
MEDIASTINUM = (
    (0.448, -0.05), (0.440, 0.100), (0.436, 0.210), (0.444, 0.300), (0.446, 0.400), (0.440, 0.600), (0.430, 0.800),
    (0.430, 1.05), (0.575, 1.05), (0.572, 0.800), (0.580, 0.600), (0.574, 0.400), (0.580, 0.330), (0.596, 0.290),
    (0.588, 0.245), (0.562, 0.215), (0.556, 0.100), (0.552, -0.05),
)  # fmt: skip
SCAPULA = (
    (0.045, 0.185), (0.130, 0.170), (0.215, 0.210), (0.236, 0.300), (0.205, 0.420), (0.178, 0.470), (0.120, 0.330),
)  # fmt: skip
HUMERUS = ((0.034, 0.190), (0.024, 0.225), (0.010, 0.300), (-0.02, 0.50))
CLAVICLE = (
    (0.460, 0.212), (0.415, 0.186), (0.350, 0.172), (0.270, 0.166), (0.190, 0.146), (0.120, 0.128), (0.085, 0.132),
)  # fmt: skip


def draw_phantom(size: int = 512, seed: int = 0) -> np.ndarray:
    """Draw a frontal chest radiograph with ribs, vessels, nodules and test patterns.

    The drawing is several times finer and averaged over each pixel, as by a detector; `NODULES` and `BAR_PERIODS` are
    the true sizes. Vessels, lung texture and noise follow `seed`; all but the noise are the same chest at every size.

    Args:
        size: rows and columns, 32 to 4096.
        seed: seed of the random generator; the same seed gives the same pixels.

    Returns:
        ``[size, size]`` float32 in ``[0, 1]``, bright where the body absorbs more (MONOCHROME2).

    Raises:
        ValueError: a size out of range.
    """
    if not 32 <= size <= 4096:
        raise ValueError(f"size is {size}, expected 32 to 4096 pixels.")
    canvas = Canvas(size)
    generator = np.random.default_rng(seed)

    absorbed = _draw_soft_tissue(canvas)
    lungs = canvas.blur(canvas.polygon(smooth(RIGHT_LUNG)) + canvas.polygon(smooth(LEFT_LUNG)), 0.0022)
    heart = canvas.blur(canvas.polygon(smooth(HEART)), 0.0035)
    lungs *= 1.0 - 0.72 * heart  # only a thin fold of lung lies in front of and behind it
    absorbed -= _draw_air(canvas, lungs)
    absorbed += _draw_organs(canvas, heart)
    absorbed += lungs * (_draw_vessels(canvas, generator) + 0.022 * _draw_mottle(size, generator))
    absorbed += _draw_bones(canvas)
    absorbed += sum(_draw_sphere(canvas, nodule) for nodule in NODULES)
    film = 1.02 * (1.0 - np.exp(-1.28 * np.clip(absorbed, 0.0, None))) ** 1.12

    film = np.maximum(film, _draw_test_patterns(canvas))
    film = canvas.blur(film, 0.0004)  # the focal spot and the detector
    quanta = np.random.default_rng([seed, size]).standard_normal(film.shape)
    film += 0.0045 * np.sqrt(1.1 - np.clip(film, 0.0, 1.0)) * quanta
    return np.clip(film, 0.0, 1.0).astype(np.float32)


def write_phantom_png(out: Path, size: int = 512, seed: int = 0) -> None:
    """Write the phantom as an 8-bit grey PNG.

    Raises:
        OutputError: another file exists there, or it cannot be written.
        ValueError: a size out of range.
    """
    write_once(out, encode_png(np.rint(draw_phantom(size, seed) * 255).astype(np.uint8)))


def write_phantom_dicom(out: Path, size: int = 512, seed: int = 0, spacing_mm: float = 0.6) -> None:
    """Write the phantom as a 12-bit Digital X-Ray Image for presentation (DICOM PS3.3 A.26).

    Args:
        out: file to write.
        size: rows and columns, 32 to 4096.
        seed: seed of the random generator and the UIDs; the same call writes the same file.
        spacing_mm: distance of pixel centres at the detector (Imager Pixel Spacing), above 0.

    Raises:
        OutputError: another file exists there, or it cannot be written.
        ValueError: a size out of range.
    """
    stored = np.rint(draw_phantom(size, seed) * 4095).astype("<u2")
    dataset = _make_dx_header(f"{size} {seed} {spacing_mm}")
    dataset.ImagerPixelSpacing = [spacing_mm, spacing_mm]
    dataset.Rows, dataset.Columns = stored.shape
    dataset.PixelData = stored.tobytes()
    file = BytesIO()
    pydicom.dcmwrite(file, dataset, enforce_file_format=True)
    write_once(out, file.getvalue())


# ---- tissue -------------------------------------------------------------------------------------------------------


def _draw_soft_tissue(canvas: Canvas) -> np.ndarray:
    body = canvas.polygon(smooth(BODY))
    rounded = canvas.blur(body, 0.035) * body
    abdomen = sigmoid(canvas.y, 0.76, 0.03)
    shoulders = np.exp(-(((canvas.y - 0.16) / 0.10) ** 2)) * (np.abs(canvas.x - 0.5) / 0.5) ** 1.5
    return canvas.blur(body, 0.0015) * (0.10 + 0.72 * rounded**1.6 + 0.45 * abdomen * rounded + 0.10 * shoulders)


def _draw_air(canvas: Canvas, lungs: np.ndarray) -> np.ndarray:
    """Draw air: most in the middle of a lung, little under the sloping wall and above the diaphragm."""
    deep = canvas.blur(lungs, 0.035) ** 1.3
    windpipe = [(0.503, -0.05), (0.502, 0.12), (0.506, 0.22), (0.503, 0.315)]
    trachea = canvas.tubes([smooth(windpipe, closed=False)], 0.036)
    bronchi = canvas.tubes(
        [[(0.503, 0.315), (0.470, 0.362), (0.440, 0.395)], [(0.503, 0.315), (0.548, 0.355), (0.585, 0.385)]], 0.022
    )
    stomach = canvas.polygon(ellipse((0.695, 0.800), 0.062, 0.032, -8))
    return (
        lungs * (0.22 + 0.36 * deep)
        + 0.16 * canvas.blur(trachea, 0.004)
        + 0.10 * canvas.blur(bronchi, 0.004)
        + 0.30 * canvas.blur(stomach, 0.006)
    )


def _draw_organs(canvas: Canvas, heart: np.ndarray) -> np.ndarray:
    middle = canvas.blur(canvas.polygon(smooth(MEDIASTINUM)), 0.0035)
    outside_chest = 1.0 - sigmoid(canvas.y, 0.15, 0.03) * (1.0 - sigmoid(canvas.y, 0.74, 0.02))
    middle += outside_chest * (0.75 * canvas.blur(middle, 0.022) - middle)
    aorta = canvas.blur(canvas.tubes([[(0.575, 0.30), (0.570, 0.42), (0.562, 0.60), (0.552, 0.85)]], 0.05), 0.004)
    hilum_right = canvas.blur(canvas.polygon(ellipse((0.412, 0.435), 0.022, 0.058, 12)), 0.011)
    hilum_left = canvas.blur(canvas.polygon(ellipse((0.605, 0.400), 0.022, 0.050, -16)), 0.011)
    depth = 0.45 + 0.55 * canvas.blur(heart, 0.03)
    return (
        0.46 * heart * depth + 0.36 * middle * (1 - 0.6 * heart) + 0.07 * aorta + 0.30 * hilum_right + 0.28 * hilum_left
    )


def _draw_bones(canvas: Canvas) -> np.ndarray:
    back, front = _make_rib_curves()
    total = _draw_hollow_tubes(canvas, back, 0.0235, 0.0048) * 0.150
    total += _draw_hollow_tubes(canvas, front, 0.0265, 0.0040) * 0.085
    for side in (list, _mirror):
        widths = (0.044, 0.030, 0.027, 0.030, 0.038)
        clavicle = canvas.polygon(band(smooth(side(CLAVICLE), closed=False), widths))
        total += 0.20 * (0.45 * canvas.blur(clavicle, 0.001) + 0.55 * canvas.rim(clavicle, 0.0045))
        scapula = canvas.polygon(smooth(side(SCAPULA)))
        total += 0.045 * canvas.blur(scapula, 0.002) + 0.07 * canvas.rim(scapula, 0.006)
        arm = canvas.polygon(band(smooth(side(HUMERUS), closed=False), (0.090, 0.062, 0.056)))
        total += 0.16 * canvas.blur(arm, 0.002) + 0.12 * canvas.rim(arm, 0.007)
    return total + _draw_spine(canvas)


def _make_rib_curves() -> tuple[list[list[Point]], list[list[Point]]]:
    """Return nine pairs of ribs: the back arc rises from the spine and falls to the side, the front arc is lower."""
    back, front = [], []
    angle = np.linspace(0.0, 1.0, 40)
    for index in range(9):
        head = 0.128 + 0.0675 * index  # where the rib leaves the spine
        reach = 0.150 + 0.205 * (1.0 - np.exp(-(index + 0.35) / 2.1))  # how far out the chest wall is
        drop = 0.050 + 0.0125 * index  # how much lower the rib is at the side
        across = 0.036 + (reach - 0.036) * np.sin(angle * np.pi / 2)
        down = head - 0.030 * np.sin(np.pi * np.minimum(angle * 1.5, 1.0)) + drop * angle**2.0 * (0.6 + 0.4 * angle)
        for sign in (-1, 1):
            back.append([(0.5 + sign * a, d) for a, d in zip(across.tolist(), down.tolist(), strict=True)])
        if index < 5:
            inner = 0.115 + 0.012 * index
            across = reach - (reach - inner) * (1 - np.cos(angle * np.pi / 2))
            down = down[-1] + (0.115 + 0.010 * index) * np.sin(angle * np.pi / 2) ** 1.15
            for sign in (-1, 1):
                front.append([(0.5 + sign * a, d) for a, d in zip(across.tolist(), down.tolist(), strict=True)])
    return back, front


def _draw_spine(canvas: Canvas) -> np.ndarray:
    total = np.zeros_like(canvas.x)
    bodies, plates, processes, pedicles = [], [], [], []
    y, height = -0.02, 0.037
    while y < 1.0:
        half = 0.024 + 0.011 * y
        bodies.append([(0.5 - half, y), (0.5 - 0.9 * half, y + height / 2), (0.5 - half, y + height),
                       (0.5 + half, y + height), (0.5 + 0.9 * half, y + height / 2), (0.5 + half, y)])  # fmt: skip
        plates += [[(0.5 - half, edge), (0.5 + half, edge)] for edge in (y + 0.002, y + height - 0.002)]
        processes.append(ellipse((0.5, y + 0.8 * height), 0.0058, 0.0125, 0))
        pedicles += [ellipse((0.5 + sign * 0.62 * half, y + 0.33 * height), 0.0052, 0.0078, 0) for sign in (-1, 1)]
        y += height + 0.0065 + 0.003 * y
        height *= 1.035
    for shapes, amount, soft in ((bodies, 0.13, 0.0018), (processes, 0.12, 0.0012)):
        total += amount * canvas.blur(canvas.polygons(shapes), soft)
    total += 0.10 * canvas.blur(canvas.tubes(plates, 0.004), 0.001)
    rings = canvas.polygons(pedicles)
    return total + 0.10 * canvas.rim(rings, 0.0025)


def _draw_vessels(canvas: Canvas, generator: np.random.Generator) -> np.ndarray:
    """Draw vessels that fork from the hilum outwards; a fork divides width**2.7, and they fade to the side."""
    branches: list[tuple[list[Point], float]] = []

    def grow(start: Point, direction: float, width: float, length: float) -> None:
        points = [start]
        for bend in generator.normal(0.0, 0.11, 5).tolist():
            direction += bend
            x, y = points[-1]
            points.append((x + length / 5 * math.cos(direction), y + length / 5 * math.sin(direction)))
        branches.append((points, width))
        if width < 0.0015:
            return
        share = generator.uniform(0.35, 0.65)
        turn = generator.uniform(0.25, 0.62)
        side = generator.choice((-1.0, 1.0))
        for part, angle in ((share, side * turn * (1.3 - share)), (1 - share, -side * turn * (0.3 + share))):
            shorter = length * float(generator.uniform(0.66, 0.86))
            grow(points[-1], direction + float(angle), width * float(part) ** (1 / 2.7), shorter)

    for hilum, outwards in (((0.415, 0.430), np.pi), ((0.600, 0.398), 0.0)):
        flip = -1.0 if outwards else 1.0
        for downwards in (-1.25, -0.85, -0.35, 0.1, 0.5, 0.85, 1.15, 1.4):
            direction = outwards + flip * downwards + generator.normal(0.0, 0.06)
            start = (hilum[0] + generator.normal(0.0, 0.006), hilum[1] + 0.035 * downwards)
            width, length = generator.uniform((0.0085, 0.066), (0.0125, 0.088)).tolist()
            grow(start, float(direction), width, length)
    total = np.zeros_like(canvas.x)
    to_hilum = np.hypot(np.abs(canvas.x - 0.5) - 0.09, canvas.y - 0.42)
    edges = (0.0, 0.0012, 0.0018, 0.0027, 0.0040, 0.0060, 0.0090, 1.0)
    for low, high in pairwise(edges):
        group = [(points, width) for points, width in branches if low <= width < high]
        if group:
            mean = sum(width for _, width in group) / len(group)
            total += (0.004 + 15.0 * mean) * canvas.blur(canvas.strokes(group), 0.0006 + 0.12 * mean)
    return total * (0.30 + 0.95 * np.exp(-((to_hilum / 0.22) ** 2)))


def _draw_mottle(size: int, generator: np.random.Generator) -> np.ndarray:
    """Draw lung texture: noise of falling spectrum, the same at every size."""
    total = np.zeros((size, size))
    for cells, amount in ((12, 0.9), (40, 0.45), (110, 0.32), (260, 0.26), (520, 0.2)):
        grid = generator.standard_normal((cells, cells)).astype(np.float32)
        resampled = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)  # antialiased when reducing
        total += amount * np.asarray(resampled, dtype=np.float64)
    return total


def _draw_sphere(canvas: Canvas, nodule: Nodule) -> np.ndarray:
    squared = ((canvas.x - nodule.x) ** 2 + (canvas.y - nodule.y) ** 2) / (nodule.diameter / 2) ** 2
    thickness = nodule.diameter * np.sqrt(np.clip(1.0 - squared, 0.0, None))
    return (0.09 + 3.6 * nodule.diameter) / nodule.diameter * canvas.blur(thickness, 0.0006)


# ---- marks on the film ------------------------------------------------------------------------------------


def _draw_test_patterns(canvas: Canvas) -> np.ndarray:
    """Draw the marker, the line pairs, the wedge and the lettering; 0 elsewhere."""
    marker = [(0.915, 0.045), (0.927, 0.045), (0.927, 0.083), (0.950, 0.083), (0.950, 0.094), (0.915, 0.094)]
    bars: list[Sequence[Point]] = []
    top = 0.800
    for period in BAR_PERIODS:
        bars += [box(0.012 + n * period, top, period / 2, 0.019) for n in range(int(0.062 / period))]
        top += 0.026
    rays = []
    for n in range(9):  # nine rays that meet: the point where they merge is the resolution
        middle = (n - 4) / 4
        rays.append([
            (0.955 + 0.033 * (middle - 0.062), 0.955), (0.955 + 0.033 * (middle + 0.062), 0.955),
            (0.955 + 0.0035 * (middle + 0.062), 0.800), (0.955 + 0.0035 * (middle - 0.062), 0.800),
        ])  # fmt: skip
    shapes = canvas.polygons([marker, *bars, *rays])
    return 0.93 * np.maximum(shapes, canvas.text("DRAWN PHANTOM", (0.020, 0.030), 0.021))


def _draw_hollow_tubes(canvas: Canvas, curves: list[list[Point]], width: float, wall: float) -> np.ndarray:
    """Draw tubes with a dense wall; the lower edge of a rib is the sharper and brighter one."""
    outer = canvas.tubes(curves, width)
    inner = canvas.tubes([[(x, y - 0.1 * wall) for x, y in curve] for curve in curves], width - 2 * wall)
    return canvas.blur(0.55 * outer + 0.45 * np.clip(outer - inner, 0.0, None), 0.0011)


def _mirror(points: Sequence[Point]) -> list[Point]:
    return [(1.0 - x, y) for x, y in points]


# ---- DICOM ----------------------------------------------------------------------------------------------------------


def _make_dx_header(identity: str) -> FileDataset:
    """Return the header of the DX IOD except pixels and spacing; UIDs depend on `identity`."""

    def uid(role: str) -> UID:
        return generate_uid(entropy_srcs=["monai-sr drawn phantom", identity, role])

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    meta.MediaStorageSOPInstanceUID = uid("instance")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    date, time = "20260101", "120000"

    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName, dataset.PatientID = "Phantom^Drawn", "DRAWN-PHANTOM"
    dataset.PatientBirthDate, dataset.PatientSex = "", ""
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = uid("study"), uid("series")
    dataset.StudyID, dataset.AccessionNumber, dataset.ReferringPhysicianName = "1", "", ""
    dataset.StudyDate = dataset.SeriesDate = dataset.AcquisitionDate = dataset.ContentDate = date
    dataset.StudyTime = dataset.SeriesTime = dataset.AcquisitionTime = dataset.ContentTime = time
    dataset.StudyDescription = dataset.SeriesDescription = "Drawn chest phantom, not a patient"
    dataset.Modality, dataset.PresentationIntentType = "DX", "FOR PRESENTATION"
    dataset.SeriesNumber, dataset.InstanceNumber = 1, 1
    dataset.Manufacturer, dataset.ManufacturerModelName = "monai-sr-bundle", "drawn phantom"
    dataset.DeviceSerialNumber, dataset.SoftwareVersions = "0", "1"

    dataset.ImageType = ["DERIVED", "PRIMARY", ""]
    dataset.DerivationDescription = "Computer drawing of a chest radiograph. No patient was exposed."
    dataset.PatientOrientation = ["L", "F"]
    dataset.BodyPartExamined, dataset.ImageLaterality, dataset.ViewPosition = "CHEST", "U", "PA"
    dataset.AnatomicRegionSequence = [code("51185008", "Thorax", "SCT")]
    view = code("272479007", "postero-anterior", "SCT")
    view.ViewModifierCodeSequence = []
    dataset.ViewCodeSequence = [view]
    dataset.AcquisitionContextSequence = []
    dataset.DetectorType, dataset.PositionerType = "DIRECT", "NONE"
    dataset.BurnedInAnnotation, dataset.LossyImageCompression = "NO", "00"

    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 12, 11, 0
    dataset.PixelIntensityRelationship, dataset.PixelIntensityRelationshipSign = "LOG", -1
    dataset.RescaleIntercept, dataset.RescaleSlope, dataset.RescaleType = 0, 1, "US"
    dataset.PresentationLUTShape = "IDENTITY"
    dataset.WindowCenter, dataset.WindowWidth = 2048, 4096
    return dataset
