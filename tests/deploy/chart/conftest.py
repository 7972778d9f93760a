"""The chart, rendered once per file of values."""

from functools import cache

import programs
import pytest
from manifests.cases import CASES
from manifests.enumerations import leaves
from manifests.rendering import Helm, read


@pytest.fixture(scope="session")
def helm():
    return Helm(programs.needed("helm", target="helm"))


@pytest.fixture(scope="session")
def rendered(helm):
    """The manifests of a case, by its name; only to be read."""
    return cache(lambda case: helm.template(*CASES[case]))


@pytest.fixture(params=CASES)
def case(request):
    return request.param


@pytest.fixture
def manifests(rendered, case):
    """All manifests of one case."""
    return rendered(case)


@pytest.fixture
def named_in_values(case):
    """Every word that the case's values hold: names of what others make are among them."""
    texts = [leaf for file in CASES[case] for _, leaf in leaves(read(file.read_text()))]
    return set(map(str, texts))
