"""A bundle that removes artifacts says where, and data consistency does not put them back."""

import json

import numpy as np
import pydicom
import pytest
from monai_sr_bundle import enhance
from monai_sr_bundle.__main__ import main
from monai_sr_bundle.backends.opening import open_backend
from monai_sr_bundle.families.family import Inference, open_family
from monai_sr_bundle.inferers.data_consistency import DataConsistency
from monai_sr_bundle.inferers.postprocessing import PostprocessingRecord
from monai_sr_bundle.inferers.sampler_options import SamplerOptions
from monai_sr_bundle.report.build import Consistency, describe_findings
from monai_sr_bundle.shipped_bundles import find_bundle
from PIL import Image as Picture

from tests.images.dicom_files import radiograph
from tests.monai_workflow import run_workflow
from tests.tiny_mask import released_mask

GREY_LEVEL = 1 / 255
MARK = slice(20, 24), slice(30, 40)
"""Of `film`: so bright that the network takes it for a mark."""
FAINT = 228
"""A grey level that it takes for one with a probability between `NOTICED` and `CERTAIN`."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory):
    return str(released_mask(tmp_path_factory.mktemp("mask"))[0])


@pytest.fixture(scope="module")
def clean():
    """Grey levels of which none is as bright as a mark; so wide that a region far from a mark is not reached."""
    return np.random.default_rng(0).integers(50, 180, (48, 300), dtype=np.uint8)


@pytest.fixture(scope="module")
def film(clean):
    marked = clean.copy()
    marked[MARK] = 255
    marked[5, 250] = 255
    return marked


def missing(high, low):
    return np.abs(find_bundle("chest_xray_residual_flow_x4").degradation.reduce(high) - low)


def enlarged(image, bundle, **facts):
    """Return the result in units of the window, neither rounded nor clipped, and the artifacts removed."""
    model, record = find_bundle(bundle), PostprocessingRecord()
    family = open_family(model.facts | facts)
    inference = Inference(open_backend(model), SamplerOptions())
    high = family.enlarge_slice(np.float32(image / 255), inference, record=record)
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


def run_enhance(folder, bundle, film, suffix=".png"):
    """Enhance a film on the command line, with a report for a picture."""
    words = ["enhance", str(folder / f"in{suffix}"), str(folder / f"out{suffix}"), "--bundle", bundle]
    if suffix == ".png":
        Picture.fromarray(film).save(folder / "in.png")
        words.append("--report")
    else:
        radiograph(folder / "in.dcm", 4095 - 16 * film.astype(np.uint16), DerivationDescription="x" * 1000)
    assert main([*words, "--progress", "none"]) == 0


def test_console_and_report_say_where_and_how_much_was_removed(bundle, film, tmp_path, capsys):
    run_enhance(tmp_path, bundle, film[:, :64])
    (note,) = [line for line in capsys.readouterr().out.splitlines() if "removed" in line]
    share = 100 * 40 / (48 * 64)
    mark = "1 burned-in mark (a letter or a line) was detected and removed"
    assert note.startswith(f"  note: {mark} ({share:.3g} % of the image).")
    report = json.loads((tmp_path / "out.report.json").read_text())
    assert report["removed"] == {"places": 1, "share": pytest.approx(share / 100)}
    followed = 1 - 8 * 14 / (48 * 64)
    assert report["consistency"]["share"] == pytest.approx(followed)
    assert f"{100 * followed:.3g} % of its pixels" in note
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
    run_enhance(tmp_path, bundle, clean[:, :64])
    assert json.loads((tmp_path / "out.report.json").read_text())["removed"] == {"places": 0, "share": 0.0}
    page = (tmp_path / "out.report.html").read_text()
    assert "No burned-in mark was detected." in page
    assert "outlined in red" not in page
    assert "These numbers cover" not in page


def test_every_interface_tells_of_a_mark_of_which_the_network_is_not_sure(bundle, clean, tmp_path, capsys, caplog):
    faint = clean[:, :64].copy()
    faint[20:24, 30:40] = FAINT
    probability = open_backend(find_bundle(bundle)).run("artifacts", np.float32(faint / 255)[None, None])
    assert 0.3 < probability.max() < 0.5
    assert not enlarged(faint, bundle)[1].agreement_mask.all()
    for suffix in (".png", ".dcm"):
        run_enhance(tmp_path, bundle, faint, suffix)
        assert "1 burned-in mark (a letter or a line) was detected and removed" in capsys.readouterr().out
    assert json.loads((tmp_path / "out.report.json").read_text())["removed"]["places"] == 1
    page = (tmp_path / "out.report.html").read_text()
    assert "1 burned-in mark (letters or lines) was detected and removed: " in " ".join(page.split())
    assert "Nothing was found" not in page
    run_workflow(bundle, "inference", dataset_dir=tmp_path / "in.dcm", output_dir=tmp_path / "monai")
    sentence = enhance(faint, bundle).removed.sentence
    assert f"in.dcm: {sentence}" in [record.getMessage() for record in caplog.records]
    for path in (tmp_path / "out.dcm", *(tmp_path / "monai").glob("*.dcm")):
        derivation = pydicom.dcmread(path).DerivationDescription
        assert "Markers or what looked like them were removed in 1 place." in derivation
        assert "Not for diagnosis." in derivation
        assert len(derivation) == 1024  # the source's own text is cut


def test_a_region_beside_a_mark_tells_of_it(bundle, film):
    adjacent, far = enhance(film, bundle, roi=(41, 20, 60, 40)), enhance(film, bundle, roi=(60, 20, 80, 40))
    assert not adjacent.removed.artifact_mask.any()
    assert adjacent.removed.sentence in adjacent.warnings
    assert "were removed in 1 place." in adjacent.provenance.sentence
    assert (far.removed.count, far.removed.agreement_share, far.removed.sentence) == (0, 1.0, "")


def test_dicom_does_not_say_of_nearly_all_that_it_is_all():
    sentence = describe_findings(
        Consistency(0.1, 1.0, "HU"), "area_x2", None, shipped=True, resembles_training=True, followed_share=0.9997
    )
    assert "0.1 HU RMS where nothing was removed (over 99.9 % of it), 1 at most." in sentence
