import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from skimage import transform
from torch import nn

from scanner.ensemble.preprocessing import member_input
from scanner.errors import ContentError
from scanner.networks import LENS, NON_LENS, build
from scanner.records import MEMBERS
from scanner.training.export import merge_onnx, read_members

RNG = np.random.default_rng(20240917)


def _members():
    # He initialisation gives logits of a fraction; stretched, they span what trained networks give.
    members = {name: build(name, seed=seed).eval() for seed, name in enumerate(MEMBERS)}
    for network in members.values():
        with torch.no_grad():
            network[-1].weight.mul_(10.0)
    return members


def _cutouts(n):
    """Noise, a galaxy of random brightness, one saturated star, one constant cutout: float32, in units of the mosaics."""
    radius = np.hypot(*np.meshgrid(np.arange(200) - 99.5, np.arange(200) - 99.5))
    vis = RNG.normal(0.1, 0.003, (n, 200, 200)) + 10 ** RNG.uniform(-3, 1, (n, 1, 1)) * np.exp(-radius / 5)
    radius = np.hypot(*np.meshgrid(np.arange(66) - 32.5, np.arange(66) - 32.5))
    nisp = RNG.normal(-5.0, 4.0, (n, 3, 66, 66)) + 10 ** RNG.uniform(0, 4, (n, 3, 1, 1)) * np.exp(-radius / 2)
    vis[0, 20:24, 30:34] = 300.0
    vis[1], nisp[1] = 0.2, -3.0
    sky = np.tile([0.1, -5.0, -5.0, -5.0], (n, 1))
    sigma = np.tile([0.003, 4.0, 4.0, 4.0], (n, 1))
    return tuple(values.astype(np.float32) for values in (vis, nisp, sky, sigma))


def _run(model, outputs, vis, nisp, sky, sigma):
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    given = {"vis": vis, "nisp": nisp, "sky": sky, "sigma": sigma}
    return session.run(outputs, {node.name: given[node.name] for node in session.get_inputs()})


@pytest.mark.parametrize("preprocessing", ["minmax", "asinh_mad"])
def test_logits_are_those_of_torch_in_float64(preprocessing):
    members, cutouts = _members(), _cutouts(6)
    (logits,) = _run(merge_onnx(members, preprocessing), ["logits"], *cutouts)
    assert logits.dtype == np.float32
    assert logits.shape == (6, 7)
    for column, name in enumerate(MEMBERS):
        seen = torch.from_numpy(member_input(name, *cutouts, preprocessing))
        with torch.no_grad():
            outputs = members[name].double()(seen).numpy()
        expected = outputs[:, LENS] - outputs[:, NON_LENS]
        assert np.ptp(expected) > 0.1, "the inputs do not tell the outputs apart"
        assert np.abs(logits[:, column] - expected).max() <= 1e-3


def test_resize_in_the_graph_is_skimage_resize():
    model = onnx.load_from_string(merge_onnx(_members(), "minmax"))
    resized = ["vis/image/from-minimum/66", "nisp/from-minimum/200"]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in resized)
    vis, nisp = RNG.random((2, 200, 200), dtype=np.float32), RNG.random((2, 3, 66, 66), dtype=np.float32)
    vis -= vis.min(axis=(-2, -1), keepdims=True)
    nisp -= nisp.min(axis=(-2, -1), keepdims=True)
    small, large = _run(model.SerializeToString(), resized, vis, nisp, None, None)
    for row in range(2):
        assert np.abs(small[row, 0] - transform.resize(vis[row].astype(float), (66, 66), order=1)).max() <= 1e-6
        for band in range(3):
            assert np.abs(large[row, band] - transform.resize(nisp[row, band].astype(float), (200, 200), order=1)).max() <= 1e-6


def test_batch_is_free_and_rows_do_not_mix():
    model, cutouts = merge_onnx(_members(), "asinh_mad"), _cutouts(5)
    (together,) = _run(model, ["logits"], *cutouts)
    (alone,) = _run(model, ["logits"], *(values[3:4] for values in cutouts))
    np.testing.assert_allclose(alone[0], together[3], atol=1e-4)


def test_same_weights_same_bytes_and_sky_only_where_it_is_read():
    members = _members()
    model = merge_onnx(members, "minmax")
    assert model == merge_onnx(dict(reversed(members.items())), "minmax")
    assert [node.name for node in onnx.load_from_string(model).graph.input] == ["vis", "nisp"]
    asinh = onnx.load_from_string(merge_onnx(members, "asinh_mad"))
    assert [node.name for node in asinh.graph.input] == ["vis", "nisp", "sky", "sigma"]


def test_members_can_be_read_back(tmp_path):
    members = _members()
    path = tmp_path / "ensemble.onnx"
    path.write_bytes(merge_onnx(members, "minmax"))
    again = read_members(path)
    for name in MEMBERS:
        for key, value in members[name].state_dict().items():
            torch.testing.assert_close(again[name].state_dict()[key], value, rtol=0, atol=0)
    assert merge_onnx(again, "minmax") == path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"not a model", b"\x08\x07"])
def test_what_is_no_ensemble_is_refused(tmp_path, content):
    path = tmp_path / "ensemble.onnx"
    path.write_bytes(content)
    with pytest.raises(ContentError, match=r"ensemble\.onnx: not an ensemble"):
        read_members(path)


def test_bad_ensembles_are_refused():
    members = _members()
    with pytest.raises(ContentError, match="lacks OU-VIS"):
        merge_onnx({name: network for name, network in members.items() if name != "OU-VIS"}, "minmax")
    with pytest.raises(ValueError, match="unknown preprocessing 'sqrt'"):
        merge_onnx(members, "sqrt")
    normalised = nn.Sequential(*members["OU-J"][:1], nn.BatchNorm2d(50), *members["OU-J"][1:])
    with pytest.raises(ContentError, match=r"OU-J, layer 1: BatchNorm2d.* fold or remove"):
        merge_onnx({**members, "OU-J": normalised}, "minmax")
    with torch.no_grad():
        members["OU-Y"][0].bias[3] = float("nan")
    with pytest.raises(ContentError, match="OU-Y, layer 0: weights that are not finite"):
        merge_onnx(members, "minmax")
