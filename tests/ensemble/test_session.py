import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
from waiting import LIMIT_S

from scanner.ensemble import session as session_module
from scanner.ensemble.session import ONNX_NAME, PROVIDERS, EnsembleSession, open_session
from scanner.errors import ContentError, UsageError

AVAILABLE = [name for name in PROVIDERS if ONNX_NAME[name] in onnxruntime.get_available_providers()]
MISSING = [name for name in PROVIDERS if name not in AVAILABLE]
OPENVINO_PYTHON = os.environ.get("OPENVINO_PYTHON")


def test_logits_are_those_of_a_bare_session(bundle, cutouts):
    found = open_session(bundle, "cpu").logits(*cutouts[:4])
    bare = onnxruntime.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    (expected,) = bare.run(["logits"], dict(zip(("vis", "nisp", "sky", "sigma"), cutouts, strict=False)))
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert found.dtype == np.float32


def test_an_object_scores_the_same_bytes_in_any_batch_and_again(bundle, cutouts):
    session = open_session(bundle, "cpu")
    together = session.logits(*cutouts[:4])
    np.testing.assert_array_equal(session.logits(*cutouts[:4]), together)
    reverse = session.logits(*(values[::-1] for values in cutouts[:4]))
    np.testing.assert_array_equal(reverse[::-1], together)
    np.testing.assert_array_equal(session.logits(*(values[2:3] for values in cutouts[:4]))[0], together[2])


def test_threads_change_no_more_than_the_last_digits(bundle, cutouts):
    one, two = (open_session(bundle, "cpu", threads=threads) for threads in (1, 2))
    np.testing.assert_allclose(two.logits(*cutouts[:4]), one.logits(*cutouts[:4]), atol=1e-4)
    np.testing.assert_array_equal(two.logits(*cutouts[:4]), two.logits(*cutouts[:4]))


@pytest.mark.parametrize("parallel", [2, 8])
def test_objects_at_a_time_change_no_bit(bundle, cutouts, parallel):
    """Many times over, so that threads meet in every order; more threads than objects, too."""
    alone = open_session(bundle, "cpu").logits(*cutouts[:4])
    session = open_session(bundle, "cpu", parallel=parallel)
    for _ in range(4):
        assert session.logits(*cutouts[:4]).tobytes() == alone.tobytes()
    assert session.logits(*(values[:1] for values in cutouts[:4])).tobytes() == alone[:1].tobytes()
    assert session.core_seconds > 0


def test_so_many_are_at_work_at_a_time(cutouts):
    """Each waits for two others: were there fewer at a time, none would ever end."""
    together = threading.Barrier(3)

    class Meeting:
        def get_inputs(self):
            return [SimpleNamespace(name=name) for name in ("vis", "nisp", "sky", "sigma")]

        def run(self, outputs, feed):
            together.wait(LIMIT_S)
            return [np.zeros((1, 7), np.float32)]

    assert EnsembleSession(Meeting(), "cpu", parallel=3).logits(*cutouts[:4]).shape == (6, 7)


def test_one_at_a_time_is_done_by_the_caller(bundle, cutouts):
    session = open_session(bundle, "cpu")
    session.logits(*cutouts[:4])
    assert session.core_seconds == 0


def test_what_fails_in_a_thread_reaches_the_caller(bundle, cutouts):
    class Broken:
        def get_inputs(self):
            return [SimpleNamespace(name=name) for name in ("vis", "nisp", "sky", "sigma")]

        def run(self, outputs, feed):
            raise MemoryError("no room")

    with pytest.raises(MemoryError, match="no room"):
        EnsembleSession(Broken(), "cpu", parallel=2).logits(*cutouts[:4])


def test_a_gpu_takes_batches_whatever_was_asked(bundle):
    session = SimpleNamespace(get_inputs=list)
    assert EnsembleSession(session, "cuda", parallel=4).parallel == 1
    assert EnsembleSession(session, "cpu", parallel=4).parallel == 4


def test_minmax_reads_no_sky(write_bundle, cutouts, tmp_path):
    session = open_session(write_bundle(tmp_path / "minmax", preprocessing="minmax"), "cpu")
    assert session.inputs == ("vis", "nisp")
    vis, nisp, sky, sigma = cutouts[:4]
    np.testing.assert_array_equal(session.logits(vis, nisp, sky * 7, sigma * 3), session.logits(vis, nisp, sky, sigma))


def test_asinh_scores_do_not_see_the_gain(bundle, cutouts):
    session, (vis, nisp, sky, sigma) = open_session(bundle, "cpu"), cutouts[:4]
    np.testing.assert_allclose(
        session.logits(vis * 4, nisp * 4, sky * 4, sigma * 4), session.logits(vis, nisp, sky, sigma), atol=1e-4
    )


def test_no_objects_no_logits(bundle, cutouts):
    assert open_session(bundle, "cpu").logits(*(values[:0] for values in cutouts[:4])).shape == (0, 7)


def test_auto_takes_the_best_there_is(bundle):
    provider = open_session(bundle).provider
    assert provider == next(name for name in ("cuda", "openvino", "cpu") if name in AVAILABLE)


@pytest.mark.parametrize("provider", MISSING)
def test_a_missing_provider_is_refused_with_its_wheel(bundle, provider):
    wheel = "[openvino]'" if provider.startswith("openvino") else "[gpu]'"
    with pytest.raises(UsageError) as caught:
        open_session(bundle, provider)
    assert f"provider '{provider}' is not in this ONNX Runtime" in str(caught.value)
    assert wheel in str(caught.value)


def test_bfloat16_is_refused_where_the_processor_would_compute_in_float32(bundle, monkeypatch, tmp_path):
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: [ONNX_NAME["openvino"], ONNX_NAME["cpu"]])
    monkeypatch.setattr(session_module, "PROCESSOR", tmp_path / "cpuinfo")
    for flags in (None, "flags : fpu avx512f avx512_vnni\n"):
        if flags is not None:
            (tmp_path / "cpuinfo").write_text(flags)
        with pytest.raises(UsageError, match="needs a processor with AMX or AVX-512 for bfloat16, which this one has not"):
            open_session(bundle, "openvino-bfloat16")


#: Scores cutouts by the bundle that ships, one by one, together, and several at a time; and in float32.
WITH_OPENVINO = """
import json, numpy as np
from scanner.ensemble import bundles
from scanner.ensemble.session import open_session
rng = np.random.default_rng(5)
vis, nisp = (rng.normal(0, 1, (6, *shape)).astype(np.float32) for shape in ((200, 200), (3, 66, 66)))
vis[:, 90:110, 90:110] += rng.uniform(1, 300, (6, 1, 1)).astype(np.float32)
nisp[:, :, 30:36, 30:36] += rng.uniform(1, 300, (6, 3, 1, 1)).astype(np.float32)
cutouts = vis, nisp, np.zeros((6, 4), np.float32), np.ones((6, 4), np.float32)
bundle = bundles.load(None)
half, three = (open_session(bundle, "openvino-bfloat16", parallel=parallel) for parallel in (1, 3))
exact = open_session(bundle, "openvino")
one_by_one = np.concatenate([half.logits(*(part[i : i + 1] for part in cutouts)) for i in range(6)])
found = [half.logits(*cutouts), half.logits(*cutouts), three.logits(*cutouts), one_by_one]
print(json.dumps({"same": all(np.array_equal(found[0], one) for one in found),
                  "off": float(np.abs(half.plain_logits(*cutouts) - exact.plain_logits(*cutouts)).max()),
                  "provider": half.provider}))
"""


@pytest.mark.skipif(OPENVINO_PYTHON is None, reason="OPENVINO_PYTHON names no Python with onnxruntime-openvino")
def test_bfloat16_gives_the_same_bits_however_the_work_is_divided():
    """``OPENVINO_PYTHON=openvino/bin/python``, an environment of its own: that wheel overwrites the project's own."""
    environment = os.environ | {"PYTHONPATH": str(Path(session_module.__file__).parents[2])}
    command = [str(OPENVINO_PYTHON), "-W", "ignore", "-c", WITH_OPENVINO]
    found = json.loads(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)
    assert found["same"]
    assert found["provider"] == "openvino-bfloat16"
    # A bfloat16 has 8 bits: nearer than 1e-3 nothing was computed in it, further than 1 something else is wrong.
    assert 1e-3 < found["off"] < 1.0


def test_tensorrt_without_its_libraries_names_them_and_no_driver(bundle, monkeypatch):
    class FallenBack:
        def get_providers(self):
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["TensorrtExecutionProvider", "CPUExecutionProvider"])
    monkeypatch.setattr(session_module, "open_graph", lambda *given: FallenBack())
    with pytest.raises(UsageError, match=r"TensorRT libraries, which neither scanner\[gpu\] nor the container image brings"):
        open_session(bundle, "tensorrt")


def test_an_unknown_provider_is_refused(bundle):
    with pytest.raises(UsageError, match="provider 'tpu' is unknown; choose auto, cpu"):
        open_session(bundle, "tpu")


def test_without_onnx_runtime_it_says_what_to_install(bundle):
    program = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from scanner.ensemble.bundles import load\n"
        "from scanner.ensemble.session import open_session\n"
        "from scanner.errors import UsageError\n"
        "try:\n"
        f"    open_session(load({str(bundle.path)!r}))\n"
        "except UsageError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "[cpu]'" in done.stdout


def test_onnx_runtime_neither_reports_nor_leaves_a_file(bundle, tmp_path):
    program = "import scanner, onnxruntime\nfrom scanner.ensemble import bundles, session\n"
    program += f"session.open_session(bundles.load({str(bundle.path)!r}))"
    environment = {name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"}
    subprocess.run([sys.executable, "-c", program], env=environment | {"TMPDIR": str(tmp_path)}, check=True)
    assert list(tmp_path.iterdir()) == []


def _renamed(model, old, new):
    graph = onnx.load_from_string(model)
    for node in graph.graph.node:
        node.input[:] = [new if name == old else name for name in node.input]
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.graph.input, *graph.graph.output):
        value.name = new if value.name == old else value.name
    return graph.SerializeToString()


@pytest.mark.parametrize(
    ("old", "new", "word"), [("vis", "image", "'image'"), ("sky", "background", "'background'"), ("logits", "p", "'p'")]
)
def test_a_graph_with_other_names_is_refused(write_bundle, models, tmp_path, old, new, word):
    renamed = write_bundle(tmp_path / "renamed", model=_renamed(models["asinh_mad"], old, new))
    with pytest.raises(ContentError, match=r"renamed/ensemble\.onnx: its inputs .* asinh_mad ensemble") as caught:
        open_session(renamed, "cpu")
    assert word in str(caught.value)


def test_a_graph_of_another_preprocessing_is_refused(write_bundle, models, tmp_path):
    mixed = write_bundle(tmp_path / "mixed", preprocessing="minmax", model=models["asinh_mad"])
    with pytest.raises(ContentError, match="not those of a minmax ensemble"):
        open_session(mixed, "cpu")


def test_what_is_no_graph_is_refused(write_bundle, tmp_path):
    broken = write_bundle(tmp_path / "broken", model=b"not a graph")
    with pytest.raises(ContentError, match=r"broken/ensemble\.onnx: ONNX Runtime cannot run it") as caught:
        open_session(broken, "cpu")
    assert "\n" not in str(caught.value)


def test_other_shapes_are_refused(bundle, cutouts):
    vis, nisp, sky, sigma = cutouts[:4]
    with pytest.raises(ValueError, match=r"nisp has shape \(6, 2, 66, 66\)"):
        open_session(bundle, "cpu").logits(vis, nisp[:, :2], sky, sigma)
