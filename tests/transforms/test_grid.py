import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai_sr_bundle.transforms.postprocessing import EnlargedGridd

AFFINE = torch.tensor([[0.1, 0.7, 0, -90], [0.7, -0.1, 0.2, 30], [0.1, 0, 5, 12], [0, 0, 0, 1]], dtype=torch.float64)


def test_a_landmark_keeps_its_position_and_slices_stay():
    source = MetaTensor(torch.zeros(1, 6, 8, 3), affine=AFFINE, meta={"files": ["a.nii"]})
    data = EnlargedGridd("pred", ref_key="image", scale=4)({"image": source, "pred": torch.zeros(1, 24, 32, 3)})
    middle_of_children = [4 * 2 + 1.5, 4 * 5 + 1.5, 1, 1]
    np.testing.assert_allclose(
        data["pred"].affine.numpy() @ middle_of_children, AFFINE.numpy() @ [2, 5, 1, 1], atol=1e-9
    )
    assert data["pred"].meta["files"] == ["a.nii"]


def test_the_source_keeps_its_own_grid():
    source = MetaTensor(torch.zeros(1, 6, 8), affine=AFFINE)
    EnlargedGridd("pred", ref_key="image", scale=4)({"image": source, "pred": torch.zeros(1, 24, 32)})
    assert torch.equal(source.affine, AFFINE)
