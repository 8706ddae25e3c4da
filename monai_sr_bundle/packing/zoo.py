"""Lay out a pull request to the model zoo: packed bundles, unit tests for one and several GPUs, list entries.

The tests need nothing but the zoo's own `ci/unit_tests/utils.py`: they draw their images, and run on a CPU too.
"""

from __future__ import annotations

import difflib
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory

from monai_sr_bundle.bundles import Bundle
from monai_sr_bundle.errors import BundleError
from monai_sr_bundle.images.staging import staged, write_file
from monai_sr_bundle.packing.card import needs_backbone, training_overlays
from monai_sr_bundle.packing.pack import pack, require_replaceable
from monai_sr_bundle.packing.verify import PUBLISHED, ZOO_CHECKS, verify
from monai_sr_bundle.shipped_bundles import find_bundle

LISTS = "ci/bundle_custom_data.py"
"""File of the zoo with the lists of bundles that its CI excuses from a check."""


def pack_for_zoo(names: Sequence[str], out: Path, *, overwrite: bool = False) -> Iterator[str]:
    """Pack bundles into a checkout of the model zoo, or a folder laid out as one, with their unit tests.

    What the zoo's lists must name is written to `bundle_custom_data.diff`, a change of the checkout's own file, or to
    `bundle_custom_data.txt`, line by line, where `out` is no checkout. The zoo's own files are not changed.

    Args:
        names: names of bundles, or their source folders.
        out: the checkout, or another folder.
        overwrite: replace what was packed and written before. Default False.

    Yields:
        One line for each file or folder that was written, and for each entry.

    Raises:
        BundleError: a bundle learns nothing, or fails a check of the zoo's, and then nothing of the others is written
            either; see `pack.pack`.
        OutputError: see `pack.pack`.
    """
    bundles = [find_bundle(name) for name in names]
    for bundle in bundles:
        if not bundle.parameters:
            raise BundleError(
                f"{bundle.name} is not offered to the zoo: it learns nothing, and the zoo takes trained models, named "
                f"by organ, modality and task. Pack it for yourself with `monai-sr pack {bundle.name} OUT`."
            )
    targets = [out / "models" / bundle.name for bundle in bundles]
    for target in targets:
        require_replaceable(target, overwrite=overwrite)
    entries: list[tuple[str, str]] = []
    texts: dict[Path, str] = {}
    with TemporaryDirectory(prefix="monai-sr-zoo-") as scratch, ExitStack() as stack:
        models = Path(scratch)
        if (out / "models" / PUBLISHED).is_file():
            shutil.copyfile(out / "models" / PUBLISHED, models / PUBLISHED)
        for name, bundle in zip(names, bundles, strict=True):
            folder = pack(name, models)
            checks = list(verify(folder, only=ZOO_CHECKS))
            failed = next((check for check in checks if not check.passed), None)
            if failed is not None:
                reason = f"{failed.name}: {failed.message}"
                raise BundleError(f"{bundle.name}: the zoo's CI would refuse it ({reason}). Nothing was written.")
            entries += [(check.exclusion, bundle.name) for check in checks if check.exclusion]
            for suffix, distributed in (("", False), ("_dist", True)):
                path = out / "ci" / "unit_tests" / f"test_{bundle.name}{suffix}.py"
                texts[path] = unit_test(bundle, folder, distributed=distributed)
        if entries:
            texts |= _entries(entries, out)
        for target in targets:  # all are moved to their places when all are beside them
            shutil.copytree(models / target.name, stack.enter_context(staged(target, overwrite=overwrite)))
    yield from map(str, targets)
    yield from (str(write_file(path, text.encode())) for path, text in texts.items())
    yield from (f"{LISTS}: {name} into {listed}" for listed, name in entries)


def _entries(entries: list[tuple[str, str]], out: Path) -> dict[Path, str]:
    """Return the file with the entries of the zoo's lists, as a change of its own file where there is one."""
    if not (out / LISTS).is_file():
        return {out / "bundle_custom_data.txt": "".join(f"{listed}: {name}\n" for listed, name in entries)}
    old = changed = (out / LISTS).read_text(encoding="utf-8")
    for listed, name in entries:
        changed = _with_entry(changed, listed, name)
    difference = difflib.unified_diff(
        old.splitlines(keepends=True), changed.splitlines(keepends=True), f"a/{LISTS}", f"b/{LISTS}"
    )
    return {out / "bundle_custom_data.diff": "".join(difference)}


def _with_entry(text: str, listed: str, name: str) -> str:
    """Return the zoo's lists with a name at the end of one of them.

    Raises:
        BundleError: there is no such list.
    """
    match = re.search(rf"(?m)^{listed} = \[([^\]]*)\]", text)
    if match is None:
        raise BundleError(f"{LISTS} has no list {listed}. Lay the pull request out in another folder.")
    names = [*re.findall(r'"([^"]+)"', match[1])]
    if name not in names:
        names.append(name)
    lines = "".join(f'    "{each}",\n' for each in names)
    return f"{text[: match.start()]}{listed} = [\n{lines}]{text[match.end() :]}"


def unit_test(bundle: Bundle, folder: Path, *, distributed: bool = False) -> str:
    """Return the text of a unit test for the zoo: the texts of a packed bundle run on drawn images.

    Args:
        bundle: bundle in its source folder.
        folder: the packed bundle.
        distributed: train and measure in several processes, as `test_NAME_dist.py`. Default False.
    """
    is_ct, configs = bundle.modality == "CT", folder / "configs"
    imports = ["import numpy as np", "import nibabel as nib" if is_ct else "from PIL import Image"]
    if distributed:
        imports += ["import torch", "from utils import export_config_and_run_mgpu_cmd"]
    else:
        imports += ["from monai.bundle import ConfigWorkflow", "from utils import check_workflow"]
    stages = [["train", *overlay] for overlay in training_overlays(bundle) if not needs_backbone(configs, overlay)]
    if distributed:
        stages = [[*names, "multi_gpu_train"] for names in stages]
    tests = _RUN_DISTRIBUTED if distributed else _RUN
    if (configs / "evaluate.yaml").is_file():
        tests += _EVALUATE_DISTRIBUTED if distributed else _EVALUATE
    values = {
        # As isort orders them: modules first, capital letters as small ones.
        "imports": "\n".join(sorted(imports, key=lambda line: (line.startswith("from"), line.lower()))),
        "name": bundle.name,
        "class": "".join(word.capitalize() for word in bundle.name.split("_")) + ("Dist" if distributed else ""),
        "sets": json.dumps(bundle.facts["sets"]),
        "train": _one_or_several_lines("TRAIN = ", stages),
        "count": _COUNT_DISTRIBUTED if distributed else _COUNT,
        "draw": _DRAW_VOLUME if is_ct else _DRAW_FILM,
        "columns": ', "spacing_mm"' if is_ct else "",
        "cells": ', "0.7x0.7x5.0"' if is_ct else "",
        "tests": tests,
        # The drawn files are named otherwise than those that the bundle's sources choose.
        "films": 'QUICK["films"] = [[SETS[0], 1, 1.0]]\n\n' if "films" in bundle.facts else "",
        "suffix": ".nii.gz" if is_ct else ".png",
    }
    text = _UNIT_TEST
    for name, value in values.items():
        text = text.replace(f"<<{name}>>", value)
    return text


def _one_or_several_lines(start: str, items: list[list[str]]) -> str:
    """Return a list as black writes it behind `start`: in one line where that has room for it."""
    line = json.dumps(items)
    return line if len(start + line) <= 120 else "[\n" + "".join(f"    {json.dumps(item)},\n" for item in items) + "]"


_UNIT_TEST = """\
# Copyright (c) MONAI Consortium
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#     http://www.apache.org/licenses/LICENSE-2.0
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

import csv
import os
import shutil
import sys
import tempfile
import unittest

<<imports>>

BUNDLE_ROOT = "models/<<name>>"
SETS = <<sets>>  # folders of images that the bundle trains on
# configs of each stage
TRAIN = <<train>>
<<count>>
QUICK = {"iterations": 2, "batch_size": 1, "validations": 1, "limit": COUNT, "val_limit": COUNT, "progress": False}

<<films>># the code of the bundle lies in its folder
sys.path.insert(0, os.path.abspath(BUNDLE_ROOT))


<<draw>>


def write_set(folder):
    os.makedirs(folder)
    with open(os.path.join(folder, "manifest.csv"), "w", newline="") as f:
        rows = csv.writer(f)
        rows.writerow(["file", "split", "license", "patient_id"<<columns>>])
        for number, split in enumerate(COUNT * ["train", "val", "test"]):
            name = f"{split}_{number}<<suffix>>"
            draw(os.path.join(folder, name), number)
            rows.writerow([name, split, "Apache-2.0", f"{os.path.basename(folder)} {number}"<<cells>>])


def config_files(names):
    return [os.path.join(BUNDLE_ROOT, "configs", f"{name}.yaml") for name in names]


class Test<<class>>(unittest.TestCase):
    def setUp(self):
        self.dataset_dir = tempfile.mkdtemp()
        self.output_dir = os.path.join(self.dataset_dir, "output")
        for name in SETS:
            write_set(os.path.join(self.dataset_dir, name))

    def tearDown(self):
        shutil.rmtree(self.dataset_dir)

<<tests>>

if __name__ == "__main__":
    unittest.main()
"""

_COUNT = """\
COUNT = 1  # images or slices of each split"""

_COUNT_DISTRIBUTED = """\
GPUS = torch.cuda.device_count() or 2  # processes on the CPU
COUNT = GPUS  # images or slices of each split"""

_DRAW_FILM = """\
def draw(path, seed, cells=24):
    coarse = np.random.default_rng(seed).integers(40, 200, (cells, cells))
    Image.fromarray(np.kron(coarse, np.ones((16, 16))).astype(np.uint8)).save(path)"""

_DRAW_VOLUME = """\
def draw(path, seed, cells=20):
    coarse = np.random.default_rng(seed).integers(-900, 100, (cells, cells, 12))
    volume = np.kron(coarse, np.ones((16, 16, 1))).astype(np.int16)
    nib.save(nib.Nifti1Image(volume, np.diag([0.7, 0.7, 5.0, 1.0])), path)"""

_RUN = """\
    def run_workflow(self, workflow_type, names, check_properties=True, **override):
        workflow = ConfigWorkflow(
            workflow_type=workflow_type,
            config_file=config_files(names),
            logging_file=os.path.join(BUNDLE_ROOT, "configs/logging.conf"),
            meta_file=os.path.join(BUNDLE_ROOT, "configs/metadata.json"),
            bundle_root=BUNDLE_ROOT,
            output_dir=self.output_dir,
            **override,
        )
        check_workflow(workflow, check_properties=check_properties)

    def test_train_config(self):
        for names in TRAIN:
            with self.subTest(configs=names):
                self.run_workflow("train", names, dataset_dir=self.dataset_dir, **QUICK)
                os.remove(os.path.join(self.output_dir, "model.pt"))

    def test_infer_config(self):
        images = os.path.join(self.dataset_dir, "images")
        os.makedirs(images)
        draw(os.path.join(images, "chest<<suffix>>"), seed=0, cells=4)
        self.run_workflow("infer", ["inference"], dataset_dir=images, force_model=True)
        self.assertEqual(os.listdir(self.output_dir), ["chest_sr<<suffix>>"])
"""

_EVALUATE = """
    def test_evaluate_config(self):
        self.run_workflow("train", ["evaluate"], check_properties=False, dataset_dir=self.dataset_dir, limit=COUNT)
        self.assertIn("metrics.csv", os.listdir(self.output_dir))
"""

_RUN_DISTRIBUTED = """\
    def run_distributed(self, names, **override):
        export_config_and_run_mgpu_cmd(
            config_file=config_files(names),
            logging_file=os.path.join(BUNDLE_ROOT, "configs/logging.conf"),
            meta_file=os.path.join(BUNDLE_ROOT, "configs/metadata.json"),
            override_dict={
                "bundle_root": BUNDLE_ROOT,
                "dataset_dir": self.dataset_dir,
                "output_dir": self.output_dir,
                **override,
            },
            output_path=os.path.join(self.dataset_dir, f"{names[0]}_override.json"),
            ngpu=GPUS,
        )

    def test_train_mgpu_config(self):
        for names in TRAIN:
            with self.subTest(configs=names):
                self.run_distributed(names, **QUICK)
                os.remove(os.path.join(self.output_dir, "model.pt"))
"""

_EVALUATE_DISTRIBUTED = """
    def test_evaluate_mgpu_config(self):
        self.run_distributed(["evaluate", "multi_gpu_evaluate"], limit=COUNT)
        self.assertIn("metrics.csv", os.listdir(self.output_dir))
"""
