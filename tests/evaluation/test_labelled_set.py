import json
import math
import os
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_dataset import write_dataset

from scanner.errors import ContentError
from scanner.labelled_set import LabelledSet
from scanner.records import IMAGE_SHAPES


@pytest.mark.parametrize(
    ("trained_on", "seen"),
    [
        ((), False),
        (("0" * 64, "drawn:eval:2:5000", "drawn:eval:11:5", "drawn:train:1:5000"), False),
        (("0" * 64, "drawn:eval:1:5000"), True),
    ],
)
def test_a_set_that_was_drawn_where_it_was_trained_on_is_known_by_preset_and_seed(sets, trained_on, seen):
    dataset = LabelledSet(sets["eval"])
    assert dataset.drawn_from == "drawn:eval:1"
    assert dataset.was_seen_by(trained_on) == seen
    assert dataset.was_seen_by((*trained_on, dataset.fingerprint))


def truth_of(**columns):
    def change(folder):
        truth = pq.read_table(folder / "truth.parquet").to_pydict()
        n = len(truth["target_id"])
        pq.write_table(pa.table(truth | {name: [value] * n for name, value in columns.items()}), folder / "truth.parquet")

    return change


def described_by(make):
    def change(folder):
        (folder / "dataset.json").unlink()
        make(folder / "dataset.json")

    return change


def store_of(name, **changes):
    def change(folder):
        path = folder / "cutouts.zarr" / name / "zarr.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))

    return change


HOSTILE = {
    "a label that is no number": (truth_of(is_lens=math.nan), "column is_lens holds double, not bool"),
    "a label in words": (truth_of(is_lens="false"), "column is_lens holds string, not bool"),
    "no label": (truth_of(visible=None), "column visible holds null, not bool"),
    "no class": (truth_of(class_name=None), "column class_name holds null, not string"),
    "a long class": (truth_of(class_name="x" * 1_000_000), "a name of 1000000 letters"),
    "ids in words": (truth_of(target_id="1"), "column target_id holds string, not int64"),
    "a signal in words": (truth_of(arc_snr="much"), "column arc_snr holds string, not float32"),
    "a place that is nowhere": (truth_of(x_arcsec=math.inf), "x_arcsec is infinite"),
    "a pipe": (described_by(os.mkfifo), r"dataset\.json: is a pipe"),
    "a folder": (described_by(os.mkdir), r"dataset\.json: is a folder"),
    "a sparse file": (described_by(lambda path: (path.touch(), os.truncate(path, 5 * 10**9))), "is longer than 64 MB"),
    "deep JSON": (described_by(lambda path: path.write_text("[" * 100_000)), "damaged .*recursion"),
    "a list": (described_by(lambda path: path.write_text("[1]")), "no JSON object"),
    "wide cutouts": (store_of("vis", shape=[40, 10**6, 200]), r"'vis' holds \w+ of \(1000000, 200\), not"),
    "narrow cutouts": (store_of("vis", shape=[40, 100, 200]), r"'vis' holds \w+ of \(100, 200\), not"),
    "other numbers": (store_of("ra", data_type="float32"), "'ra' holds float32 of .*, not float64"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_set_is_refused_in_one_sentence(small_set, tmp_path, name):
    """Before, it was read for ever, or whole into memory, or what is no label became one."""
    change, words = HOSTILE[name]
    folder = shutil.copytree(small_set, tmp_path / "set")
    change(folder)
    with pytest.raises(ContentError, match=words) as caught:
        LabelledSet(folder)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def small_set(tmp_path_factory):
    n, random = 40, np.random.default_rng(0)
    vis, nisp = (random.normal(size=(n, *IMAGE_SHAPES[name])).astype(np.float32) for name in IMAGE_SHAPES)
    columns = {name: np.zeros(n) for name in ("arc_snr", "x_arcsec", "y_arcsec")}
    columns |= {"target_id": np.arange(n), "is_lens": [True] * n, "visible": [True] * n, "class_name": ["ring"] * n}
    folder = tmp_path_factory.mktemp("hostile") / "set"
    return write_dataset(folder, columns, vis, nisp, np.zeros((n, 4), np.float32), np.ones((n, 4), np.float32), {})
