"""A public benchmark, made in its published layout: its measures are what plain counting gives."""

import json
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from astropy.table import Table
from click.testing import CliRunner
from made_stamps import write_vis
from scans import plain_bundle

from scanner.cli.main import scanner
from scanner.ensemble import bundles
from scanner.errors import InputMissingError, UsageError
from scanner.evaluation.benchmark import BenchmarkResult, run_benchmark
from scanner.evaluation.compare import compare_bundles
from scanner.evaluation.metrics import auroc
from scanner.labelled_set import LabelledSet
from scanner.labels.importing import import_labels

N_LENSES, N_OTHERS = 4, 5


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory):
    """Two tables that share their lenses, as EUCLID-SAGE has them; the sources of non-lenses are fainter."""
    folder = tmp_path_factory.mktemp("sage")
    place = folder / "benchmarks"
    for number in range(N_LENSES + 2 * N_OTHERS):
        write_vis(place / f"stamps/{number}_VIS_101.fits", 60.0 + number, -50.0, TILEIDX=102018665)
    for letter, first in (("D", N_LENSES), ("R", N_LENSES + N_OTHERS)):
        numbers = [*range(N_LENSES), *range(first, first + N_OTHERS)]
        n = len(numbers)
        columns = {
            "stamp_file": [f"stamps/{number}_VIS_101.fits" for number in numbers],
            "label": [1] * N_LENSES + [0] * N_OTHERS,
            "object_id": numbers,
            "lens_id": ["1_2"] * N_LENSES + [""] * N_OTHERS,
            "grade": ["A", "B"] * (N_LENSES // 2) + [""] * N_OTHERS,
            "phz_label": [2] * n,
            "vis_magnitude": [20.0] * n,
            "right_ascension": [60.0 + number for number in numbers],
            "declination": [-50.0] * n,
            "selection_rank": list(range(n)),
            "matched_lens_id": [""] * n,
        }
        Table(columns).write(place / f"EUCLID-SAGE-1k-{letter}_VIS.csv", format="ascii.csv")
    return folder


@pytest.fixture(scope="module")
def bundle():
    return bundles.load(plain_bundle())


class Scored:
    """Log-odds that say what they are asked to, in the place of networks."""

    def __init__(self, bundle, *arguments):
        self.bundle, self.rule = bundle, SimpleNamespace(threshold=0.5)

    def score(self, vis, nisp, sky, sigma, bad_fraction, flags):
        assert np.isfinite(vis).all()
        assert (bad_fraction[:, 1:] == 1).all()
        n = len(vis)
        logits = np.full((n, 7), np.nan, np.float32)
        logits[:, 4] = [3, 2, -1, 1, 2, -2, -3, -4, -5][:n]
        return SimpleNamespace(logits=logits, decision=logits[:, 4] > 0)


def test_the_measures_are_those_of_the_benchmark(benchmark, bundle, monkeypatch):
    monkeypatch.setattr(sys.modules[run_benchmark.__module__], "Scorer", Scored)
    result = run_benchmark("euclid-sage", benchmark, [("one", bundle)])
    assert [one.table for one in result.figures] == ["EUCLID-SAGE-1k-D_VIS", "EUCLID-SAGE-1k-R_VIS"]
    found = result.figures[0]
    assert (found.judge, found.negatives) == ("OU-VIS", "matched in brightness, profile, size, shape")
    assert (found.n_lenses, found.n_others, found.n_left_out, found.n_found, found.n_false) == (4, 5, 0, 3, 1)
    score, label = np.array([3, 2, -1, 1, 2, -2, -3, -4, -5]), np.array([1, 1, 1, 1, 0, 0, 0, 0, 0], bool)
    # Of 20 pairs, by hand: 3 beats all; 2 beats four and ties; 1 and -1 beat four.
    assert found.auroc.value == auroc(score, label) == pytest.approx((5 + 4.5 + 4 + 4) / 20)
    assert (found.completeness.value, found.false_alarm_rate.value, found.precision) == (0.75, 0.2, 0.75)
    assert {grade: one.value for grade, one in found.by_grade.items()} == {"A": 0.5, "B": 1.0}
    expected = {f: 0.75 * float(f) / (0.75 * float(f) + 0.2 * (1 - float(f))) for f in ("0.0002", "2e-05")}
    assert found.precision_at == pytest.approx(expected)
    # Five non-lenses set no threshold that one in a hundred passes.
    assert found.recalls == {}


def test_the_command_line_measures_the_bundle_that_ships(benchmark, tmp_path):
    words = ["evaluate", plain_bundle(), "--benchmark", "euclid-sage", str(benchmark), "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(scanner, words, standalone_mode=False, catch_exceptions=False)
    assert "EUCLID-SAGE-1k-D_VIS" in result.output
    assert "Scored by OU-VIS alone" in result.output
    found = BenchmarkResult.model_validate(json.loads((tmp_path / "out" / "benchmark.json").read_bytes()))
    # Every stamp holds the same star: no finder tells lenses from non-lenses, up to the noise that fills what is not covered.
    assert all(one.n_found + one.n_false in (0, N_LENSES + N_OTHERS) for one in found.figures)


def test_what_is_refused(benchmark, bundle, tmp_path):
    with pytest.raises(InputMissingError, match=r"holds no table EUCLID-SAGE-\*_VIS\.csv"):
        run_benchmark("euclid-sage", tmp_path, [("one", bundle)])
    for words, message in (
        (["evaluate"], "give labelled sets as --data"),
        (["evaluate", "--benchmark", "euclid-sage", str(benchmark), "--known", "list.txt"], "compare with simulated sets"),
    ):
        with pytest.raises(UsageError, match=message):
            CliRunner().invoke(scanner, words, standalone_mode=False, catch_exceptions=False)


def test_a_set_without_nisp_is_not_judged_by_members_that_need_it(benchmark, tmp_path):
    table = benchmark / "benchmarks" / "EUCLID-SAGE-1k-R_VIS.csv"
    import_labels(table, tmp_path / "set", cutouts=benchmark / "benchmarks", preset="euclid-sage")
    with pytest.raises(UsageError, match="none of its cutouts has Y or J or H, which members need; give it as --real"):
        compare_bundles([plain_bundle()], [LabelledSet(tmp_path / "set")])
