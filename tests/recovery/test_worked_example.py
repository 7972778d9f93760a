"""The population study of docs/selection-function.md recovers the Einstein radii that the lenses were drawn with."""

import re
from pathlib import Path

import numpy as np
import pytest
from astropy.table import Table
from painted import drawn_sky

PAGE = Path(__file__).parents[2] / "docs" / "selection-function.md"


@pytest.fixture(scope="module")
def studied(recovery):
    """What the page's code leaves behind, and the Einstein radii of all lenses of the sky that it asks about."""
    lenses = drawn_sky(12, area_deg2=250.0, n_others=10).lenses
    radius, snr, is_found = lenses["theta_e_arcsec"], lenses["arc_snr"], np.nan_to_num(lenses["probability"]) >= 0.5
    Table({"theta_e": radius[is_found], "arc_snr": snr[is_found]}).write(recovery.parent / "found.ecsv")
    codes = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (code,) = (code for code in codes if "found.ecsv" in code)
    namespace = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(recovery.parent)
        exec(compile(code, str(PAGE), "exec"), namespace)
    return namespace, radius[(radius > 0.5) & (snr > 25)]


def test_the_input_distribution_is_recovered(studied):
    namespace, truth = studied
    expected, _ = np.histogram(truth, namespace["edges"])
    assert (np.abs(namespace["corrected"] - expected) < 2.5 * namespace["error"]).all()
    # Fewer than half of the smallest rings were found: what is corrected is no small thing.
    assert namespace["as_found"][0] < 0.5 * expected[0]


def test_the_figures_of_the_page_are_those_of_the_code(studied):
    namespace, truth = studied
    text = " ".join(PAGE.read_text(encoding="utf-8").split())
    means = re.search(r"their mean is ([\d.]+)″, as found ([\d.]+)″, corrected ([\d.]+)″\.", text)
    counts = re.search(r"Of ([\d,]+) lenses between 0.5″ and 0.75″ only ([\d,]+) were found; corrected, (\d+) ± (\d+)\.", text)
    assert [float(number) for number in means.groups()] == pytest.approx(
        [truth.mean(), namespace["mean_as_found"], namespace["mean_corrected"]], abs=0.006
    )
    assert [float(number) for number in counts.groups()] == pytest.approx(
        [((truth >= 0.5) & (truth < 0.75)).sum(), *(namespace[name][0] for name in ("as_found", "corrected", "error"))], abs=0.6
    )
    assert abs(namespace["mean_corrected"] - truth.mean()) < 0.2 * abs(namespace["mean_as_found"] - truth.mean())
