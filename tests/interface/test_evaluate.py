"""Bundles measured from Python: the command's own code, figures as numbers, and what is written."""

import numpy as np
import pytest

import scanner
from scanner.cli.main import main
from scanner.errors import InputMissingError, UsageError
from scanner.evaluation.results import Evaluation


@pytest.fixture(scope="module")
def data(write_dataset, tmp_path_factory):
    return write_dataset(tmp_path_factory.mktemp("sets") / "discs", 24)


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def measured(data, cache, tmp_path_factory):
    return scanner.evaluate(None, data, tmp_path_factory.mktemp("out"), rotations=2, cache=cache, progress=False)


def test_figures_are_numbers_with_intervals(measured):
    figures = measured.figures
    combined = figures[(figures["score"] == measured.record.bundles[0].combined) & (figures["figure"] == "auroc")]
    row = combined[(combined["positives"] == "all") & (combined["negatives"] == "all")][0]
    (summary,) = measured.record.sets
    assert (row["lenses"], row["others"]) == ("discs", "discs")
    assert (row["n_positives"], row["n_negatives"]) == (summary.n_lenses, 24 - summary.n_lenses)
    found = measured.record.find(row["bundle"], measured.record.pairings[0], row["score"], "all", "all").auroc
    assert (row["value"], row["low"], row["high"]) == (found.value, found.low, found.high)
    assert np.all((figures["low"] <= figures["value"]) & (figures["value"] <= figures["high"]))


def test_tables_are_those_that_the_command_prints(measured, data, cache, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["evaluate", "--data", str(data), "--cache", str(cache), "--rotations", "2"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    for name in ("low-fpr", "table-5", "table-6"):
        assert measured.tables[name].meta["title"] in printed
        assert all(cell in printed for cell in measured.tables[name][0])
    assert "<h4>Lenses found where few non-lenses pass</h4><" in measured._repr_html_()


def test_page_and_record_are_written(measured):
    assert measured.page.name == "evaluation.html"
    assert Evaluation.model_validate_json((measured.page.parent / "evaluation.json").read_bytes()) == measured.record
    assert "Lenses found where few non-lenses pass" in measured.page.read_text()
    assert repr(measured) == f"<BundleEvaluation of {measured.record.bundles[0].name} on discs; {measured.page}>"


def test_a_loaded_bundle_is_measured_and_written_with_its_figures(measured, data, cache, tmp_path):
    bundle = scanner.load_bundle()
    again = scanner.evaluate([bundle], [data], rotations=2, cache=cache, progress=False)
    assert (again.record, again.page) == (measured.record, None)
    assert again.write_bundle(tmp_path / "bundle", "9.1").manifest.metrics
    assert scanner.load_bundle(tmp_path / "bundle").manifest.version == "9.1"


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"beta": 0}, "beta must be more than 0 (given: 0)."),
        ({"prevalence": 1}, "prevalence must lie between 0 and 1 (given: 1)."),
        ({"bundles": [None, None]}, "is the same bundle as"),
    ],
)
def test_settings_that_make_no_sense_are_one_sentence(data, settings, said):
    with pytest.raises(UsageError) as caught:
        scanner.evaluate(**{"bundles": None, "data": data, "progress": False, **settings})
    assert said in str(caught.value)
    with pytest.raises(InputMissingError, match="not a dataset"):
        scanner.evaluate(None, "nowhere")
