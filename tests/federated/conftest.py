"""Two drawn sites, both with radiographs, one of them with boxes; and one federation for all tests that need one."""

from __future__ import annotations

from pathlib import Path

import pytest
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.federated.site_settings import SETTINGS_FILE, SiteSettings, write_site_settings
from monai_sr_bundle.federated.study import parse_study
from nvflare.apis.fl_constant import FLContextKey
from nvflare.apis.fl_context import FLContext
from nvflare.apis.workspace import Workspace

from tests.random_backbone import write_squeezenet

TASK = {"bundle": "chest_xray_srcnn_x4", "rounds": 2, "iterations": 2, "batch_size": 2, "patch_size": 8}


def study(name="drawn", **changes):
    return parse_study(name, {**TASK, **changes}, "the test")


def draw_sites(folder: Path, modality: str = "CXR", names: tuple[str, ...] = ("north", "south")):
    """Settings of sites by name; the second has a training image more, no boxes, and another loss of resolution."""
    sites = {}
    for number, name in enumerate(names):
        write_phantom_set(folder / name, modality, size=64, train=2 + number, val=1, test=2)
        if number and modality == "CXR":
            (folder / name / "boxes.csv").unlink()
        scale = 4
        operator = f"area_x{scale}+noise3" if number else None
        sites[name] = SiteSettings(folder / name, folder / "work" / name, operator, reduce=1)
    return sites


def site_context(folder: Path, settings: SiteSettings):
    """NVFlare's context at a site, whose kit is a folder with these settings."""
    (folder / "startup").mkdir(exist_ok=True)
    write_site_settings(settings, folder / "local" / SETTINGS_FILE)
    context = FLContext()
    context.set_prop(FLContextKey.WORKSPACE_OBJECT, Workspace(str(folder)), private=True)
    return context


@pytest.fixture(scope="session")
def sites(tmp_path_factory):
    return draw_sites(tmp_path_factory.mktemp("sites"))


@pytest.fixture(scope="session")
def federation(tmp_path_factory):
    """A server and three hospitals that run, with mTLS on this machine; starting them takes most of a test's time."""
    pytest.importorskip("nvflare", reason="federated training: nvflare is not installed (extra [federated])")
    from tests.federated.federation import Federation

    sites = ("hospital-1", "hospital-2", "hospital-3")
    with Federation(tmp_path_factory.mktemp("federation"), sites).running() as federation:
        yield federation


@pytest.fixture(scope="session")
def backbone(tmp_path_factory):
    return write_squeezenet(tmp_path_factory.mktemp("backbone") / "squeezenet.npz")
