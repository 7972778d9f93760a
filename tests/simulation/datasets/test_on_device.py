import subprocess
import sys

import numpy as np
import pytest

from scanner.errors import UsageError
from scanner.simulation.datasets.cutouts import check_device, draw, draw_batches, noiseless
from scanner.simulation.datasets.presets import PRESETS, draw_scene, object_generator
from scanner.simulation.datasets.truth import COLUMNS, truth_arrays

torch = pytest.importorskip("torch")
PRESET = PRESETS["train"]
#: Runs where these are missing.
BARE = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("astropy", "zarr", "numcodecs", "pyarrow", "pandas", "lenstronomy"):
            raise ImportError(name)
sys.meta_path.insert(0, Missing())
from scanner.simulation.datasets.cutouts import draw_batches
from scanner.simulation.datasets.presets import PRESETS
[batch] = draw_batches(PRESETS["quick"], 1, 2, 2, "cpu")
print(tuple(batch.vis.shape), tuple(batch.nisp.shape))
"""


@pytest.fixture(scope="module")
def batches():
    return list(draw_batches(PRESET, 5, 24, 16, "cpu"))


def test_light_is_that_of_the_processor_s_own_library():
    mix = dict.fromkeys(("lens", "compound_arc", "quasar_lens", "spiral", "merger", "star"), 1.0 / 6)
    preset = PRESET.model_copy(update={"mix": mix})

    def scenes():
        return [draw_scene(preset, object_generator("train", 5, index)) for index in range(12)]

    plain, plain_arcs = noiseless(scenes())
    light, arcs = noiseless(scenes(), like=torch.zeros(1))
    assert isinstance(light, torch.Tensor)
    peak = plain.max(axis=(2, 3), keepdims=True)
    assert (np.abs(light.numpy() - plain) <= 1e-4 * peak).all()
    for one, other in zip(plain_arcs, arcs, strict=True):
        assert [a.mag_eff for a in one] == pytest.approx([a.mag_eff for a in other], rel=1e-4)
        assert [a.arc_snr for a in one] == pytest.approx([a.arc_snr for a in other], rel=1e-3)


def test_the_same_objects_are_drawn(batches):
    assert [len(batch.vis) for batch in batches] == [16, 8]
    assert batches[0].vis.shape[1:] == (200, 200)
    assert batches[0].nisp.shape[1:] == (3, 66, 66)
    there = draw(PRESET, 5, range(24))
    for name, expected in truth_arrays(there.truth).items():
        found = np.concatenate([batch.truth[name] for batch in batches])
        if expected.dtype.kind in "fi":
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=2, err_msg=name, equal_nan=True)
        else:
            assert (found == expected).all(), name
    assert list(batches[0].truth) == [column.name for column in COLUMNS]
    # Another noise, of the same strength.
    difference = torch.cat([batch.vis for batch in batches]).numpy() - there.vis
    assert 0.0024 < 1.4826 * np.median(np.abs(difference)) / np.sqrt(2.0) < 0.0032


def test_workers_draw_the_same(batches):
    again = list(draw_batches(PRESET, 5, 24, 16, "cpu", workers=2))
    for one, other in zip(batches, again, strict=True):
        # Processes have other numbers of threads, and torch other sums: the last bits may differ.
        torch.testing.assert_close(one.vis, other.vis, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(one.nisp, other.nisp, rtol=1e-5, atol=1e-3)


def test_objects_can_be_drawn_from_any_number_on(batches):
    [tail] = draw_batches(PRESET, 5, 8, 16, "cpu", first=16)
    assert torch.equal(tail.vis, batches[1].vis)
    assert tail.truth["target_id"].tolist() == list(range(16, 24))


def test_a_bare_machine_is_enough():
    run = subprocess.run([sys.executable, "-c", BARE], capture_output=True, text=True, check=True)
    assert run.stdout.split("\n")[0] == "(2, 200, 200) (2, 3, 66, 66)"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_told():
    with pytest.raises(UsageError, match="no GPU"):
        check_device("cuda")
