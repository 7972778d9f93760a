"""The manifests of the chart's own values files, word for word as they were when somebody last read them."""

import pytest
from manifests.golden import FOLDER, KEPT, golden


@pytest.mark.parametrize("case", KEPT)
def test_manifests_are_those_that_were_read(helm, case):
    kept = (FOLDER / f"{case}.yaml").read_text()
    assert golden(helm, case) == kept, "read the difference, then: make golden"


def test_nothing_is_kept_of_values_that_are_gone():
    assert sorted(file.stem for file in FOLDER.glob("*")) == sorted(KEPT)
