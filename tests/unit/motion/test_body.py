"""The synthetic body, SMPL files in their formats, and the same vertices as the package smplx."""

import pickle
import sys
import types
from dataclasses import asdict, replace

import numpy as np
import pytest
import roma
import torch

from motion.body import load_body, synthetic_body
from motion.body.load import read_arrays
from motion.body.synthetic import PARENTS, synthetic_arrays
from motion.pose.types import SMPL24
from owlcap.errors import ModelError

smplx = pytest.importorskip("smplx")


def random_pose(seed=0, count=2, joints=24):
    generator = torch.Generator().manual_seed(seed)
    pose = torch.randn(count, joints, 3, generator=generator) * 0.4
    return pose, torch.randn(count, 10, generator=generator)


def smplx_model(arrays):
    from smplx.utils import Struct
    from smplx.vertex_ids import vertex_ids

    return smplx.SMPL("", data_struct=Struct(**asdict(arrays)), vertex_ids=dict.fromkeys(vertex_ids["smplh"], 0))


def test_the_synthetic_body_has_the_shapes_of_an_smpl_file():
    arrays = synthetic_arrays()
    num_vertices = len(arrays.v_template)
    assert arrays.f.shape == (13776, 3)
    assert arrays.shapedirs.shape == (num_vertices, 3, 10)
    assert arrays.posedirs.shape == (num_vertices, 3, 207)
    assert arrays.J_regressor.shape == (24, num_vertices)
    assert arrays.weights.shape == (num_vertices, 24)
    assert arrays.kintree_table.shape == (2, 24)
    np.testing.assert_allclose(arrays.weights.sum(1), 1)
    np.testing.assert_allclose(arrays.J_regressor.sum(1), 1)
    assert all(np.abs(arrays.shapedirs[..., k]).max() > 0.005 for k in range(10))


def test_its_joint_tree_is_smpls():
    parents = {name: SMPL24[PARENTS[i]] for i, name in enumerate(SMPL24) if i}
    assert parents["left_wrist"] == "left_elbow"
    assert parents["right_shoulder"] == "right_collar"
    assert parents["left_collar"] == parents["neck"] == "spine3"
    assert parents["left_hip"] == parents["spine1"] == "pelvis"


def test_its_surface_is_closed_and_faces_outward():
    arrays = synthetic_arrays()
    edges = np.sort(np.concatenate([arrays.f[:, [0, 1]], arrays.f[:, [1, 2]], arrays.f[:, [2, 0]]]), axis=1)
    assert (np.unique(edges, axis=0, return_counts=True)[1] == 2).all()
    a, b, c = (arrays.v_template[arrays.f[:, k]] for k in range(3))
    volume = (a * np.cross(b, c)).sum() / 6
    assert 0.05 < volume < 0.15  # cubic metres; capsules overlap at the joints


def test_left_is_x_and_front_is_z():
    body = synthetic_body()
    places = dict(zip(body.point_names, body.point_template[0], strict=True))
    assert places["left_wrist"][0] > 0.5 > -0.5 > places["right_wrist"][0]
    assert places["nose"][2] > places["head"][2] + 0.05
    assert places["head"][1] > places["left_foot"][1] + 1.4


def test_vertices_equal_those_of_smplx():
    pose, shape = random_pose()
    theirs = smplx_model(synthetic_arrays())(betas=shape, body_pose=pose[:, 1:].flatten(1), global_orient=pose[:, 0])
    mine = synthetic_body().vertices(roma.rotvec_to_rotmat(pose), shape, theirs.joints[:, 0])
    torch.testing.assert_close(mine, theirs.vertices, rtol=0, atol=2e-6)


def test_named_points_equal_joints_of_smplx():
    pose, shape = random_pose(1)
    theirs = smplx_model(synthetic_arrays())(betas=shape, body_pose=pose[:, 1:].flatten(1), global_orient=pose[:, 0])
    body = synthetic_body()
    places, added = body.point_template
    joints = (places + torch.einsum("pis,ns->npi", added, shape))[:, :24]
    placed = body.chain(roma.rotvec_to_rotmat(pose), joints)[1]
    torch.testing.assert_close(placed, theirs.joints[:, :24], rtol=0, atol=2e-6)


def test_an_npz_file_gives_the_same_body(tmp_path):
    np.savez(tmp_path / "body.npz", **asdict(synthetic_arrays()), gender="neutral")
    body = load_body(str(tmp_path / "body.npz"))
    torch.testing.assert_close(body.template, synthetic_body().template)
    assert body.parents == PARENTS
    assert body.landmarks["nose"] == 332  # SMPL's own vertex


def chumpy_like(arrays, tmp_path):
    """A pickle as SMPL's files are: chumpy objects and a sparse regressor, of modules that are not installed."""
    chumpy, sparse = types.ModuleType("chumpy.ch"), types.ModuleType("scipy.sparse.csc")

    class Ch:
        def __init__(self, x):
            self.x = x

    class csc_matrix:
        def __init__(self, dense):
            columns = [np.flatnonzero(dense[:, k]) for k in range(dense.shape[1])]
            self.indices = np.concatenate(columns)
            self.indptr = np.cumsum([0, *map(len, columns)])
            self.data = np.concatenate([dense[rows, k] for k, rows in enumerate(columns)])
            self._shape = dense.shape

    Ch.__module__, csc_matrix.__module__ = "chumpy.ch", "scipy.sparse.csc"
    Ch.__qualname__, csc_matrix.__qualname__ = "Ch", "csc_matrix"
    chumpy.Ch, sparse.csc_matrix = Ch, csc_matrix
    modules = {"chumpy": types.ModuleType("chumpy"), "chumpy.ch": chumpy}
    modules |= {"scipy": types.ModuleType("scipy"), "scipy.sparse": types.ModuleType("s"), "scipy.sparse.csc": sparse}
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        values = asdict(arrays)
        values |= {
            "shapedirs": Ch(arrays.shapedirs),
            "J_regressor": csc_matrix(arrays.J_regressor),
            "bs_type": "lrotmin",
        }
        (tmp_path / "body.pkl").write_bytes(pickle.dumps(values, protocol=2))
    return tmp_path / "body.pkl"


def test_a_pickle_with_chumpy_objects_and_a_sparse_regressor_is_read_without_either_package(tmp_path):
    path = chumpy_like(synthetic_arrays(), tmp_path)
    found = read_arrays(path)
    np.testing.assert_array_equal(found.shapedirs, synthetic_arrays().shapedirs)
    np.testing.assert_array_equal(found.J_regressor, synthetic_arrays().J_regressor)


def test_a_pickle_that_would_run_something_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return print, ("run",)

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"v_template": Evil()}))
    with pytest.raises(ModelError, match="which no body model needs"):
        load_body(str(tmp_path / "evil.pkl"))


def test_a_body_with_55_joints_is_smplx(tmp_path):
    arrays = synthetic_arrays()
    extra = 55 - 24
    more = replace(
        arrays,
        v_template=np.concatenate([arrays.v_template, np.zeros((4000, 3))]),
        shapedirs=np.zeros((len(arrays.v_template) + 4000, 3, 20)),
        posedirs=np.zeros((len(arrays.v_template) + 4000, 3, 9 * 54)),
        J_regressor=np.pad(arrays.J_regressor, ((0, extra), (0, 4000))),
        weights=np.pad(arrays.weights, ((0, 4000), (0, extra))),
        kintree_table=np.array([[*PARENTS, *[15] * extra], range(55)]),
    )
    np.savez(tmp_path / "x.npz", **asdict(more))
    body = load_body(str(tmp_path / "x.npz"))
    assert body.num_joints == 55
    assert body.landmarks["nose"] == 9120
    pose, shape = random_pose(joints=55)
    assert body.vertices(roma.rotvec_to_rotmat(pose), shape, torch.zeros(2, 3)).isfinite().all()


def test_a_missing_file_says_whence_and_under_what_licence(tmp_path):
    with pytest.raises(ModelError) as caught:
        load_body(str(tmp_path / "SMPL_NEUTRAL.npz"))
    assert "SMPL_NEUTRAL.npz" in str(caught.value)
    assert "smpl.is.tue.mpg.de" in str(caught.value)
    assert "not commercial" in str(caught.value)


def test_a_file_that_lacks_an_array_or_is_none_is_refused(tmp_path):
    np.savez(tmp_path / "part.npz", v_template=np.zeros((3, 3)))
    with pytest.raises(ModelError, match="lacks f, shapedirs"):
        load_body(str(tmp_path / "part.npz"))
    (tmp_path / "text.pkl").write_text("hello")
    with pytest.raises(ModelError, match="cannot be read"):
        load_body(str(tmp_path / "text.pkl"))
