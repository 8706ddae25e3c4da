"""A bundle that removes what was put on an image says where, and data consistency does not put it back."""

import json

import jsonschema
import numpy as np
import pydicom
import pytest
from monai.bundle import ConfigWorkflow
from PIL import Image as Picture

from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.bundles import combined_sha256, configs_dir, find_bundle, open_bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.families.family import open_family
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.report.build import Consistency, describe_findings
from monai_sr_bundle.report.schema import REPORT_SCHEMA
from tests.changed_bundles import with_metadata
from tests.images.dicom_files import radiograph
from tests.tiny_mask import released_mask

GREY_LEVEL = 1 / 255
MARK = slice(20, 24), slice(30, 40)
"""Of `film`: so bright that the network takes it for a mark."""
FAINT = 228
"""A grey level that it takes for one with a probability between `NOTICED` and `CERTAIN`."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return released_mask(tmp_path_factory.mktemp("mask"))


@pytest.fixture(scope="module")
def bundle(folder):
    return str(folder)


@pytest.fixture(scope="module")
def clean():
    """Grey levels of which none is as bright as a mark; so wide that tiles and windows do not see it all."""
    return np.random.default_rng(0).integers(50, 180, (48, 300), dtype=np.uint8)


@pytest.fixture(scope="module")
def film(clean):
    marked = clean.copy()
    marked[MARK] = 255
    marked[5, 250] = 255
    return marked


def made(image, bundle, **options):
    return enhance(image, bundle, **options).image.pixels[0]


def missing(high, low):
    return np.abs(find_bundle("chest_xray_residual_flow_x4").degradation.reduce(high) - low)


def enlarged(image, bundle, **facts):
    """In units of the window, neither rounded nor clipped; with what was removed."""
    opened, record = find_bundle(bundle), PostprocessingRecord()
    family = open_family(opened.facts | facts)
    high, _ = family.enlarge_slice(np.float32(image / 255), open_backend(opened), SamplerOptions(), record=record)
    return high, record.removed


def test_what_was_removed_is_not_put_back_and_the_rest_is_the_input(bundle, film):
    low, (high, removed) = np.float32(film / 255), enlarged(film, bundle)
    alone, removed_too = enlarged(film, bundle, consistency=False)
    np.testing.assert_array_equal(removed_too.artifact_mask, removed.artifact_mask)
    np.testing.assert_array_equal(removed_too.agreement_mask, removed.agreement_mask)
    marked, followed = removed.artifact_mask[0], removed.agreement_mask[0]
    np.testing.assert_array_equal(marked, film == 255)
    assert missing(high, low)[followed].max() < GREY_LEVEL / 4
    assert missing(alone, low)[followed].max() > 10 * GREY_LEVEL
    back = DataConsistency(find_bundle(bundle).degradation)(alone, low)
    assert missing(back, low)[marked].max() < GREY_LEVEL / 4 < 10 * GREY_LEVEL < missing(high, low)[marked].max()


def test_without_marks_the_result_is_that_of_consistency(bundle, clean):
    alone, _ = enlarged(clean, bundle, consistency=False)
    degradation, low = find_bundle(bundle).degradation, np.float32(clean / 255)
    DataConsistency(degradation)(alone, low)
    np.testing.assert_array_equal(enlarged(clean, bundle)[0], alone)
    result = enhance(clean, bundle)
    assert (result.removed.count, result.removed.share, result.removed.agreement_share) == (0, 0.0, 1.0)
    assert not any("removed" in warning for warning in result.warnings)
    assert "removed" not in result.provenance.sentence
    assert enhance(clean, "bicubic").removed is None


@pytest.mark.parametrize("options", [{"tile": 64}, {"roi": (28, 10, 60, 44)}, {"roi": (41, 25, 43, 27)}])
def test_tiles_and_regions_give_the_pixels_of_the_whole(bundle, film, options):
    whole = enhance(film, bundle)
    x0, y0, x1, y1 = options.get("roi", (0, 0, film.shape[1], film.shape[0]))
    part = enhance(film, bundle, **options)
    np.testing.assert_array_equal(part.image.pixels[0], whole.image.pixels[0, 4 * y0 : 4 * y1, 4 * x0 : 4 * x1])
    for ours, theirs in (
        (part.removed.artifact_mask, whole.removed.artifact_mask),
        (part.removed.agreement_mask, whole.removed.agreement_mask),
    ):
        np.testing.assert_array_equal(ours, theirs[:, y0:y1, x0:x1])


def test_both_backends_give_the_same_pixels_and_places(bundle, film):
    soft = np.float32(film / 255)
    soft[10:14, 100:110] = 0.894  # of which neither is sure
    soft[0, 0], soft[0, 1] = 0.0, 1.0  # the range of floats is that of their pixels
    ours, theirs = (enhance(soft, bundle, backend=backend) for backend in ("torch", "onnx"))
    np.testing.assert_allclose(ours.image.pixels, theirs.image.pixels, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(ours.removed.artifact_mask, theirs.removed.artifact_mask)
    assert ours.removed.count == 4


def test_a_release_has_the_mask_and_its_hash_is_part_of_what_a_result_states(folder):
    hashes = open_bundle(folder).metadata["weights_sha256"]
    assert list(hashes) == ["model.pt", "model.onnx", "artifacts.onnx"]
    stated = {name: hashes[name] for name in ("model.onnx", "artifacts.onnx")}
    assert open_backend(open_bundle(folder), "onnx").weights_sha256 == combined_sha256(stated)


def test_onnx_without_the_mask_is_refused(tmp_path, film):
    folder = released_mask(tmp_path)
    hashes = open_bundle(folder).metadata["weights_sha256"]
    with_metadata(folder, weights_sha256={name: hash for name, hash in hashes.items() if name != "artifacts.onnx"})
    with pytest.raises(BundleError, match=r"has no artifacts.onnx. Run `monai-sr export"):
        made(film, str(folder), backend="onnx")


def test_the_reader_is_told_where_and_how_much_in_console_and_report(bundle, film, tmp_path, capsys):
    Picture.fromarray(film[:, :64]).save(tmp_path / "in.png")
    words = ("enhance", tmp_path / "in.png", tmp_path / "out.png", "--bundle", bundle, "--report", "--progress", "none")
    assert main([*map(str, words)]) == 0
    (told,) = [line for line in capsys.readouterr().out.splitlines() if "removed" in line]
    share = 100 * 40 / (48 * 64)
    mark = "1 burned-in mark (a letter or a line) was detected and removed"
    assert told.startswith(f"  note: {mark} ({share:.3g} % of the image).")
    report = json.loads((tmp_path / "out.report.json").read_text())
    jsonschema.validate(report, REPORT_SCHEMA)
    assert report["removed"] == {"places": 1, "share": pytest.approx(share / 100)}
    followed = 1 - 8 * 14 / (48 * 64)
    assert report["consistency"]["share"] == pytest.approx(followed)
    assert f"{100 * followed:.3g} % of its pixels" in told
    lacks = missing(np.asarray(Picture.open(tmp_path / "out.png")), film[:, :64])
    assert lacks.max() > report["consistency"]["result"]["maximum"]
    lacks[18:26, 28:42] = 0.0
    assert report["consistency"]["result"]["maximum"] == pytest.approx(lacks.max(), abs=1e-3)
    assert report["consistency"]["result"]["rms"] == pytest.approx(
        np.sqrt(np.square(lacks).sum() / (followed * lacks.size)), rel=1e-3
    )
    page = (tmp_path / "out.report.html").read_text()
    assert "What was removed?" in page
    assert "outlined in red" in page
    assert f"These numbers cover {100 * followed:.3g} % of the input's pixels" in page


def test_a_report_of_a_clean_image_says_that_nothing_was_found(bundle, clean, tmp_path):
    Picture.fromarray(clean[:, :64]).save(tmp_path / "in.png")
    words = ("enhance", tmp_path / "in.png", tmp_path / "out.png", "--bundle", bundle, "--report", "--quiet")
    assert main([*map(str, words)]) == 0
    assert json.loads((tmp_path / "out.report.json").read_text())["removed"] == {"places": 0, "share": 0.0}
    page = (tmp_path / "out.report.html").read_text()
    assert "No burned-in mark was detected." in page
    assert "outlined in red" not in page
    assert "These numbers cover" not in page


def test_a_mark_of_which_the_network_is_not_sure_is_told_everywhere(bundle, clean, tmp_path, capsys):
    faint = clean[:, :64].copy()
    faint[20:24, 30:40] = FAINT
    probability = open_backend(find_bundle(bundle)).run("artifacts", np.float32(faint / 255)[None, None])
    assert 0.3 < probability.max() < 0.5
    assert not enlarged(faint, bundle)[1].agreement_mask.all()
    radiograph(tmp_path / "in.dcm", 4095 - 16 * faint.astype(np.uint16))
    Picture.fromarray(faint).save(tmp_path / "in.png")
    for end in ("png", "dcm"):
        words = ("enhance", tmp_path / f"in.{end}", tmp_path / f"out.{end}", "--bundle", bundle, "--progress", "none")
        assert main([*map(str, words), *(["--report"] if end == "png" else [])]) == 0
        assert "1 burned-in mark (a letter or a line) was detected and removed" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.report.json").read_text())["removed"]["places"] == 1
    page = (tmp_path / "out.report.html").read_text()
    assert "1 burned-in mark (letters or lines) was detected and removed: " in " ".join(page.split())
    assert "Nothing was found" not in page
    through_monai(bundle, tmp_path / "in.dcm", tmp_path / "monai")
    (theirs,) = (tmp_path / "monai").glob("*.dcm")
    for written in (tmp_path / "out.dcm", theirs):
        assert "were removed in 1 place." in pydicom.dcmread(written).DerivationDescription


def test_a_region_beside_a_mark_tells_of_it(bundle, film):
    beside, far = enhance(film, bundle, roi=(41, 20, 60, 40)), enhance(film, bundle, roi=(60, 20, 80, 40))
    assert not beside.removed.artifact_mask.any()
    assert beside.removed.sentence in beside.warnings
    assert "were removed in 1 place." in beside.provenance.sentence
    assert (far.removed.count, far.removed.agreement_share, far.removed.sentence) == (0, 1.0, "")


def test_dicom_does_not_say_of_nearly_all_that_it_is_all():
    told = describe_findings(
        Consistency(0.1, 1.0, "HU"), "area_x2", None, shipped=True, resembles_training=True, followed_share=0.9997
    )
    assert "0.1 HU RMS where nothing was removed (over 99.9 % of it), 1 at most." in told


def through_monai(bundle, source, out):
    config = [f"{bundle}/model.yaml", str(configs_dir() / "workflows" / "inference.yaml")]
    paths = {"bundle_root": bundle, "dataset_dir": str(source), "output_dir": str(out)}
    workflow = ConfigWorkflow(config_file=config, workflow_type="inference", tile=64, **paths)
    workflow.initialize()
    workflow.run()


def test_a_workflow_of_monai_writes_the_same_pixels_and_says_so_in_dicom(bundle, film, tmp_path, caplog):
    file = tmp_path / "in.dcm"
    before = "x" * 1000
    radiograph(file, 4095 - 16 * film[:, :64].astype(np.uint16), DerivationDescription=before)
    through_monai(bundle, file, tmp_path / "monai")
    assert main(["enhance", str(file), str(tmp_path / "out.dcm"), "--bundle", bundle, "--quiet"]) == 0
    (theirs,) = (tmp_path / "monai").glob("*.dcm")
    sentence = enhance(film[:, :64], bundle).removed.sentence
    assert f"in.dcm: {sentence}" in [record.getMessage() for record in caplog.records]
    ours, theirs = pydicom.dcmread(tmp_path / "out.dcm"), pydicom.dcmread(theirs)
    np.testing.assert_array_equal(ours.pixel_array, theirs.pixel_array)
    for written in (ours, theirs):
        told = written.DerivationDescription
        assert "Markers or what looked like them were removed in 1 place." in told
        assert "Not for diagnosis." in told
        assert len(told) == 1024
