"""No text of a bundle is executed before all of it has been read, and only the bundle of the study is trained."""

import shutil

import pytest
import yaml
from monai_sr_bundle.bundles import open_bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.federated.check_bundle import bundle_sha256, check_bundle, check_text
from monai_sr_bundle.shipped_bundles import all_bundles, all_variants, configs_dir, find_bundle
from monai_sr_bundle.training.stages import training_stages

WORKFLOWS = configs_dir() / "workflows"
STAGES = [
    (bundle, stage)
    for each in all_bundles()
    for bundle in (each, *all_variants(each))
    for stage in training_stages(bundle)
]


@pytest.fixture
def copied(tmp_path):
    """A copy of a bundle that a test may change."""
    folder = tmp_path / "chest_xray_srcnn_x4"
    shutil.copytree(configs_dir() / folder.name, folder, ignore=shutil.ignore_patterns("variants", "*.onnx"))
    return folder


@pytest.mark.parametrize(("bundle", "stage"), STAGES, ids=lambda each: each if isinstance(each, str) else each.name)
def test_every_training_of_this_project_passes(bundle, stage):
    check_bundle(bundle, stage, bundle_sha256(bundle, stage))


def test_the_hash_is_the_same_in_another_folder(copied):
    assert bundle_sha256(open_bundle(copied)) == bundle_sha256(find_bundle(copied.name))


def test_a_bundle_that_differs_in_one_line_is_not_that_of_the_study(copied):
    expected = bundle_sha256(open_bundle(copied))
    (copied / "model.yaml").write_text((copied / "model.yaml").read_text() + "\n# another\n")
    with pytest.raises(BundleError, match="SHA-256"):
        check_bundle(open_bundle(copied), None, expected)


def test_a_bundle_with_code_is_refused_though_its_hash_is_that_of_the_study(copied):
    (copied / "model.yaml").write_text((copied / "model.yaml").read_text() + "\nmore: \"$__import__('os')\"\n")
    bundle = open_bundle(copied)
    with pytest.raises(BundleError, match="more is .* nothing was executed"):
        check_bundle(bundle, None, bundle_sha256(bundle))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({"x": {"_target_": "os.system", "command": "id"}}, "x#_target_ is 'os.system', and it is a class"),
        ({"x": [{"y": {"_target_": "monai.bundle.download"}}]}, "x#0#y#_target_"),
        ({"x": {"_target_": "$'os.' + 'system'"}}, "class that is not on the list"),
        ({"x": {"_target_": "@other"}}, "class that is not on the list"),
        ({"x": {"_target_": "monai_sr_bundle.images.staging.write_file"}}, "class that is not on the list"),
        ({"x": "$__import__('os').system('id')"}, "system is not on the list"),
        ({"x": "$().__class__.__base__.__subclasses__()"}, "__subclasses__ is not on the list"),
        ({"x": "$eval('1')"}, "eval is not on the list"),
        ({"x": "$open('file', 'w')"}, "open is not on the list"),
        ({"x": "$torch"}, "torch is not on the list"),
        ({"x": "$torch.hub.load('a', 'b')"}, "load is not on the list"),
        ({"x": "$@network.__class__"}, "__class__ is not on the list"),
        ({"x": "$(lambda torch: torch.load)(@network)"}, "load is not on the list"),
        ({"x": "$[torch for torch in @a][0].load"}, "load is not on the list"),
        ({"x": "$f'{@a!r}'"}, "JoinedStr is not allowed"),
        ({"x": "$(y := 1)"}, "NamedExpr is not allowed"),
        ({"x": "$'@and'"}, "reference inside a quoted text"),
        ({"x": "$import os"}, "import that is not on the list"),
        ({"imports": ["$import torch as monai"]}, "import that is not on the list"),
        ({"imports": ["$from os import system"]}, "import that is not on the list"),
        ({"imports": ["$from monai_sr_bundle.images.staging import write_file"]}, "import that is not on the list"),
        ({"imports": ["$import torch; import os"]}, "and "),
        ({"x": "%other.yaml::y"}, "part of another file"),
        ({"x": "$1 +"}, "it is not Python"),
    ],
)
def test_a_text_with_code_is_refused_with_its_key_and_nothing_runs(tmp_path, text, reason):
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(text))
    with pytest.raises(BundleError) as error:
        check_text(tmp_path / "train.yaml")
    assert reason in str(error.value)
    assert "nothing was executed" in str(error.value)


def test_a_text_is_read_and_never_evaluated(tmp_path):
    """PyYAML builds Python objects from tags, where its loader is not the safe one."""
    witness = tmp_path / "witness"
    (tmp_path / "train.yaml").write_text(f"x: !!python/object/apply:os.mkdir ['{witness}']\n")
    with pytest.raises(BundleError, match="cannot be read"):
        check_text(tmp_path / "train.yaml")
    assert not witness.exists()


def test_expressions_keep_what_they_need(tmp_path):
    text = {
        "imports": ["$import torch", "$from monai_sr_bundle.degradation import Degradation"],
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "size": "$Degradation.parse(@operator).scale * len(@train#dataset)",
        "pairs": "$[item for item in @items if item]",
        "loss": "$lambda output: output['loss']",
        "name": "cost: 5 $, 10 %, me@example.org",
    }
    (tmp_path / "train.yaml").write_text(yaml.safe_dump(text))
    check_text(tmp_path / "train.yaml")
