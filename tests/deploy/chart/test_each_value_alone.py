"""Every value of the chart, changed alone: what comes out is what Kubernetes takes, or helm says in a sentence what is wrong.

Hundreds of renders: part of `make verify-chart`, not of `make test`.
"""

import os
import re

import pytest
from manifests.cases import CASES
from manifests.enumerations import wrong_words
from manifests.pods import at
from manifests.rendering import CHART, NEWEST_KUBERNETES, OLDEST_KUBERNETES, RefusedError, read
from manifests.schemas import problems

if "SCANNER_VERIFY_CHART" not in os.environ:
    pytest.skip("hundreds of renders take minutes ('make verify-chart')", allow_module_level=True)

(VALUES,) = read((CHART / "values.yaml").read_text())
#: Words of the kinds that values are of.
PLAUSIBLE = ["another", "s3://bucket/another", "/data/another", "https://another.example", "10m", "7"]
#: What a template says by `fail`, and what the schema says; anything else is an accident.
SENTENCE = re.compile(r"execution error at \(scanner/templates/\S+\): [\w.]+(\.|: ).{20,}[.…]$", re.DOTALL)
SCHEMA = "values don't meet the specifications of the schema"


def leaves(value, path=()):
    """Path and value of all that is no map, and of maps that are empty."""
    if isinstance(value, dict) and value:
        for key, part in value.items():
            yield from leaves(part, (*path, key))
    else:
        yield path, value


def others(value):
    """Values that might stand in a value's place."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int):
        return [0, value + 1]
    if isinstance(value, str):
        return PLAUSIBLE if value == "" else ["", *PLAUSIBLE]
    return [[], ["another"]] if isinstance(value, list) else [{}, {"another": "one"}]


def nested(path, value):
    """A map of maps with one value at the end of a path."""
    for key in reversed(path):
        value = {key: value}
    return value


#: Case → the sections of values that mean something else there than in `every-feature`.
SECTIONS = {
    "every-feature": set(VALUES),
    "standing-scheduler": {"scheduler", "dask"},
    "many-replicas": {"service", "networkPolicy", "monitoring"},
}
#: What stands in an affinity is Kubernetes' business alone.
CHANGES = [
    (case, path, other)
    for case, sections in SECTIONS.items()
    for path, value in leaves(VALUES)
    for other in others(value)
    if path[0] in sections and path[-1] != "affinity"
]


def told(part):
    """A part of a change as a test's name has it."""
    return ".".join(part) if isinstance(part, tuple) else str(part)


@pytest.mark.parametrize(("case", "path", "value"), CHANGES, ids=told)
def test_each_value_alone(helm, case, path, value):
    try:
        manifests = helm.template(*CASES[case], settings=nested(path, value))
    except RefusedError as refusal:
        said = str(refusal).replace("\n\nUse --debug flag to render out invalid YAML", "").strip()
        assert SCHEMA in said or SENTENCE.search(said), said
        return
    for manifest in manifests:
        for kubernetes in (OLDEST_KUBERNETES, NEWEST_KUBERNETES):
            assert problems(manifest, kubernetes) == [], at(manifest, ("metadata", "name"))
        assert wrong_words(manifest) == []
