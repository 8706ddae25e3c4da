import json
from dataclasses import replace

import pytest
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.errors import BundleError, InputError, OutputError
from monai_sr_bundle.images.provenance import Sampling
from monai_sr_bundle.shipped_bundles import find_bundle
from monai_sr_bundle.uncertainty.calibration import CalibrationEntry, bundle_sha256, read_calibration

from tests.changed_bundles import copied, with_metadata
from tests.with_error_bars import calibration_of


@pytest.fixture
def bundle():
    return find_bundle("chest_xray_edsr_x4")


def flow(texture, steps=4, samples=1):
    return Sampling("flow", steps, samples, texture)


def entry(sampling=None, **changes):
    return replace(CalibrationEntry(sampling, factor=2.0, coverage=0.9, half_width=0.01), **changes)


def test_a_calibration_is_read_as_it_was_written(bundle, tmp_path):
    written = calibration_of(bundle, entries=(entry(), entry(flow(0.5), factor=0.1 + 0.2)))
    path = tmp_path / "site" / "calibration.json"
    written.write(path)
    assert read_calibration(path, bundle) == written
    calibration_of(bundle, alpha=0.2).write(path)
    assert read_calibration(path, bundle).coverage_percent == 80
    assert [each.name for each in path.parent.iterdir()] == ["calibration.json"]


def test_a_place_that_cannot_be_written_is_told(bundle, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="file is not a folder"):
        calibration_of(bundle).write(tmp_path / "file" / "calibration.json")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda facts: "no JSON", r"Expecting value.*Make one with `monai-sr calibrate chest_xray_edsr_x4 --data"),
        (lambda facts: [], r"dictionary|schema is None"),
        (
            lambda facts: {**facts, "schema": "monai-sr-calibration/1"},  # of version 0.1.0
            "schema is monai-sr-calibration/1, expected monai-sr-calibration/2",
        ),
        (lambda facts: {key: facts[key] for key in facts if key != "operator"}, "missing .* argument: 'operator'"),
        (lambda facts: {key: facts[key] for key in facts if key != "entries"}, "'entries'"),
        (lambda facts: {**facts, "more": 1}, "unexpected keyword argument 'more'"),
        (lambda facts: {**facts, "alpha": 2}, "expected alpha between 0 and 1 and at least one factor above 0"),
        (lambda facts: {**facts, "alpha": "0.1"}, "not supported between"),
        (lambda facts: {**facts, "entries": []}, "expected alpha between 0 and 1 and at least one factor above 0"),
        (lambda facts: {**facts, "entries": ["factor"]}, "not a mapping"),
        (lambda facts: {**facts, "data": 3}, "expected text for bundle, version"),
        (lambda facts: {**facts, "images": 0}, "expected at least one image and one patient"),
        (lambda facts: {**facts, "entries": [{**facts["entries"][0], "coverage": 1.2}]}, "coverage and texture from 0"),
        (lambda facts: {**facts, "entries": [{**facts["entries"][0], "guaranteed": 1.2}]}, "as strength and guarante"),
        (lambda facts: {**facts, "entries": [{"factor": 2.0}]}, "'sampling'"),
        *(
            (
                lambda facts, factor=factor: {**facts, "entries": [{**facts["entries"][0], "factor": factor}]},
                "at least one factor above 0",
            )
            for factor in (0, -1.0, float("nan"), float("inf"))
        ),
    ],
)
def test_a_broken_calibration_says_what_is_wrong(bundle, tmp_path, change, message):
    path = tmp_path / "calibration.json"
    calibration_of(bundle).write(path)
    changed = change(json.loads(path.read_text()))
    path.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(InputError, match=rf"calibration.json: cannot be read as a calibration \(.*({message})"):
        read_calibration(path, bundle)


@pytest.mark.parametrize(
    "name", ["chest_xray_edsr_x4", "chest_xray_srcnn_x4", "chest_xray_residual_flow_x4", "chest_ct_blind"]
)
def test_the_calibration_that_is_shipped_belongs_to_its_bundle(name):
    shipped = find_bundle(name)
    calibration = read_calibration(shipped.folder / "calibration.json", shipped)
    assert (calibration.bundle, calibration.version) == (name, shipped.version)


def test_a_missing_calibration_is_told(bundle, tmp_path):
    with pytest.raises(InputError, match="absent.json: cannot be read as a calibration .*No such file"):
        read_calibration(tmp_path / "absent.json", bundle)


def test_a_calibration_of_other_weights_is_refused(bundle, tmp_path):
    other = find_bundle("chest_xray_srcnn_x4")
    calibration_of(other).write(tmp_path / "calibration.json")
    with pytest.raises(
        BundleError, match=r"for chest_xray_srcnn_x4 .*, but this is chest_xray_edsr_x4 .* mean nothing; make"
    ):
        read_calibration(tmp_path / "calibration.json", bundle)


def test_a_bundle_in_a_folder_of_another_name_keeps_its_calibration(bundle, tmp_path):
    calibration_of(bundle).write(tmp_path / "calibration.json")
    renamed = open_bundle(copied(tmp_path).rename(tmp_path / "renamed"))
    assert read_calibration(tmp_path / "calibration.json", renamed).bundle == "chest_xray_edsr_x4"


def test_what_pytorch_loads_decides_on_whom_a_calibration_belongs_to(tmp_path):
    folder = copied(tmp_path)
    hashes = dict(open_bundle(folder).metadata["weights_sha256"])
    hashes_of_bundles = {bundle_sha256(open_bundle(folder))}
    for name in hashes:
        hashes_of_bundles.add(
            bundle_sha256(open_bundle(with_metadata(folder, weights_sha256={**hashes, name: "00" * 32})))
        )
    assert set(hashes) == {"model.pt", "model.onnx", "error_bars.pt", "error_bars.onnx"}
    assert len(hashes_of_bundles) == 3  # an export to ONNX alone changes nothing


def test_a_calibration_for_another_loss_of_resolution_is_refused(tmp_path):
    folder = copied(tmp_path)
    calibration_of(folder, operator="area_x4").write(tmp_path / "calibration.json")
    message = (
        "was made for inputs reduced by area_x4, but chest_xray_edsr_x4 undoes bicubic_antialias_x4. Make a new one"
    )
    with pytest.raises(BundleError, match=message):
        read_calibration(tmp_path / "calibration.json", open_bundle(folder))


def test_between_two_textures_the_higher_one_counts(bundle):
    calibration = calibration_of(
        bundle, entries=(entry(flow(1.0)), entry(), entry(flow(0.5)), entry(flow(0.5, steps=8)))
    )
    for texture, higher in ((0.5, 0.5), (0.3, 0.5), (0.51, 1.0), (1.0, 1.0)):
        assert calibration.require(flow(texture)) == entry(flow(higher))
    assert calibration.require(flow(0.2, steps=8)) == entry(flow(0.5, steps=8))
    assert calibration.require(None) == entry()


def test_an_entry_belongs_to_one_strength(bundle):
    calibration = calibration_of(bundle, entries=(entry(strength=0.7),))
    assert calibration.require(None, strength=0.7) == entry(strength=0.7)
    assert calibration.find(None) is None
    message = r"for one pass with strength 0\.5, but for: one pass with strength 0\.7\. Leave --strength out, or"
    with pytest.raises(InputError, match=message):
        calibration.require(None, strength=0.5)


@pytest.mark.parametrize(("guaranteed", "percent"), [(None, None), (0.75, 75.0), (0.7619, 76.2)])
def test_what_few_patients_guarantee_is_stated_where_it_is_less(bundle, tmp_path, guaranteed, percent):
    written = calibration_of(bundle, entries=(entry(guaranteed=guaranteed),))
    written.write(tmp_path / "calibration.json")
    calibration = read_calibration(tmp_path / "calibration.json", bundle)
    assert calibration.guaranteed_percent(calibration.entries[0]) == percent


def test_one_pass_never_takes_the_factor_of_a_texture(bundle):
    calibration = calibration_of(bundle, entries=(entry(flow(0.5)),))
    message = r"not calibrated for one pass, but for: texture 0.5 by flow in 4 steps.*calibrate chest_xray_edsr_x4`"
    with pytest.raises(InputError, match=message):
        calibration.require(None)


@pytest.mark.parametrize(
    ("sampling", "message"),
    [
        (
            flow(0.5, steps=8),
            "in 8 steps, but for: one pass; texture 0.5 by flow in 4 steps. Draw",
        ),
        (flow(0.5, samples=2), "mean of 2 samples, .* --texture 0.5 --steps 4 --samples 2`"),
        (flow(0.6), "for texture 0.6 by flow in 4 steps"),
    ],
)
def test_a_draw_that_was_not_calibrated_is_told_with_those_that_were(bundle, sampling, message):
    calibration = calibration_of(bundle, entries=(entry(), entry(flow(0.5))))
    assert calibration.find(sampling) is None
    with pytest.raises(InputError, match=message):
        calibration.require(sampling)


def test_sampler_and_steps_of_a_diffusion_model_decide_too(bundle):
    ddim = Sampling("ddim", 50, 1)
    calibration = calibration_of(bundle, entries=(entry(ddim),))
    assert calibration.require(ddim) == entry(ddim)
    message = "not calibrated for ddim in 10 steps, but for: ddim in 50 steps.*_x4 --steps 10 --samples 1`"
    with pytest.raises(InputError, match=message):
        calibration.require(Sampling("ddim", 10, 1))
    assert calibration.find(Sampling("ddpm", 50, 1)) is None
