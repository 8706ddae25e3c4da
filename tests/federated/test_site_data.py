"""A simulation's sites: patients divided, boxes and links as in the data set."""

import pytest
from monai_sr_bundle.datasets.manifest import read_boxes, read_manifest
from monai_sr_bundle.datasets.phantom_set import write_phantom_set
from monai_sr_bundle.errors import InputError
from monai_sr_bundle.federated.simulated_site import SimulatedSite
from monai_sr_bundle.federated.site_data import usual_sites, write_site_data
from monai_sr_bundle.shipped_bundles import find_bundle

SRCNN = "chest_xray_srcnn_x4"


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    write_phantom_set(folder / "drawn", "CXR", size=32, train=7, val=1, test=3)
    return folder


def patients(folder, split):
    return {record.patient_id for record in read_manifest(folder, split=split)}


def test_every_patient_belongs_to_one_site(data, tmp_path):
    sites = usual_sites(find_bundle(SRCNN), 3)
    settings = write_site_data(sites, find_bundle(SRCNN), data, tmp_path)
    folders = [settings[site.name].data for site in sites]
    trained = [patients(folder, "train") for folder in folders]
    assert sorted(map(len, trained)) == [2, 2, 3]
    assert len(set().union(*trained)) == 7
    assert [patients(folder, "val") for folder in folders] == [patients(data, "val")] * 3
    assert all(len(read_boxes(folder)) == len(read_manifest(folder)) for folder in folders)
    write_site_data(sites, find_bundle(SRCNN), data, tmp_path)  # again, as when a killed run goes on


@pytest.mark.parametrize(
    ("site", "message"),
    [
        (SimulatedSite("b", files="nobody*"), "site b has no train and no val and no test image"),
        (SimulatedSite("b", view="PA"), "site b has no train"),
        (SimulatedSite("b", operator="area_x2"), "operator is area_x2, but chest_xray_srcnn_x4 enlarges by 4"),
        (SimulatedSite("b", folder="nowhere"), "nowhere|site b has no"),
    ],
)
def test_a_site_without_images_is_refused(data, tmp_path, site, message):
    with pytest.raises(InputError, match=message):
        write_site_data((SimulatedSite("a"), site), find_bundle(SRCNN), data, tmp_path)
    assert [*tmp_path.iterdir()] == []  # nor has the other site got its folder
