"""Every shipped bundle as a task of the server: a region of a radiograph or of a volume, with the figures of it."""

from __future__ import annotations

import gzip
import io
import json

import nibabel
import numpy as np
import pydicom
import pytest
from monai_sr_bundle.datasets.phantom import draw_phantom
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.shipped_bundles import all_bundles
from monai_sr_bundle.uncertainty.error_bars import has_error_bars
from requests_toolbelt import MultipartDecoder

from tests.images.dicom_files import radiograph

FEWEST_STEPS = 2
REGION = [4, 8, 36, 40]
AFFINE = np.array([[-0.8, 0, 0, 10], [0, -0.7, 0, 20], [0, 0, 5, 30], [0, 0, 0, 1.0]])


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    """A radiograph in DICOM, and a volume in NIfTI."""
    folder = tmp_path_factory.mktemp("studies")
    radiograph(folder / "film.dcm", np.rint(draw_phantom(64, seed=1) * 1000).astype(np.uint16))
    slices = [np.rint(draw_phantom(48, seed=1).T * 1400 - 1000 + z).astype(np.int16) for z in range(4)]
    nibabel.save(nibabel.Nifti1Image(np.stack(slices, axis=2), AFFINE), folder / "ct.nii.gz")
    return folder


@pytest.mark.parametrize("bundle", list(all_bundles()), ids=lambda bundle: bundle.name)
def test_a_bundle_enlarges_a_region_of_an_image(server, studies, bundle, tmp_path):
    try:
        bundle.family.check_installed()
    except BundleError as error:
        pytest.skip(f"A BUNDLE ON THE LABELLING SERVER: {error}")
    ada = server.tokens["ada"]
    assert bundle.name in server.get("/info/", token=ada)["models"]
    options = {"region": REGION} | ({"steps": FEWEST_STEPS} if bundle.facts["family"] == "diffusion" else {})
    image = "ct.nii.gz" if bundle.modality == "CT" else "film.dcm"
    answer = server.call(
        "POST", f"/infer/{bundle.name}", ada, params={"image": image}, data={"params": json.dumps(options)}
    )
    assert answer.status_code == 200, answer.text
    figures, content = (part.content for part in MultipartDecoder.from_response(answer).parts)
    report = json.loads(figures)
    assert (report["image"], report["model"]["name"], report["roi_xyxy"]) == (image, bundle.name, REGION)
    assert (report["error_bars"] is not None) == has_error_bars(bundle), report["warnings"]
    scale_z, scale_y, scale_x = bundle.scale_zyx
    left, top, right, bottom = REGION
    size = (scale_x * (right - left), scale_y * (bottom - top))
    if bundle.modality != "CT":
        result = pydicom.dcmread(io.BytesIO(content))
        assert (result.Columns, result.Rows, result.pixel_array.shape) == (*size, size[::-1])
        between = [0.2 / scale_y, 0.1 / scale_x]
        np.testing.assert_allclose(np.array(result.ImagerPixelSpacing, float), between)
    else:
        result = nibabel.Nifti1Image.from_bytes(gzip.decompress(content))
        assert result.shape == (*size, 4 * scale_z)
        scales = np.array([scale_x, scale_y, scale_z])
        corner = AFFINE @ [left - 0.5, top - 0.5, -0.5, 1]  # stays where it is, as does the opposite one
        np.testing.assert_allclose(result.affine @ [-0.5, -0.5, -0.5, 1], corner, atol=1e-3)
        opposite = AFFINE @ [right - 0.5, bottom - 0.5, 3.5, 1]
        last = [*(np.array([right - left, bottom - top, 4]) * scales - 0.5), 1]
        np.testing.assert_allclose(result.affine @ last, opposite, atol=1e-3)
