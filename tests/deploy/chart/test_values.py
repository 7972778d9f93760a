"""The schema of values: closed, complete, with a comment for each key; and that helm goes by it."""

import itertools
import json
import re

import jsonschema
import pytest
import yaml
from manifests.cases import EXAMPLES
from manifests.pods import at
from manifests.rendering import CHART, RefusedError, read

SCHEMA = json.loads((CHART / "values.schema.json").read_text())
TEXT = (CHART / "values.yaml").read_text()
(VALUES,) = read(TEXT)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)
#: Values of which Kubernetes, Prometheus or scanner itself knows what may stand there, and refuses what is wrong.
OTHERS_OWN = {"affinity", "volumes", "volumeMounts", "to", "from", "extraEgress", "parentRefs", "additionalGroups", "config"}


def resolved(schema):
    """A schema with what it refers to in its place."""
    while "$ref" in schema:
        schema = at(SCHEMA, schema["$ref"].removeprefix("#/").split("/"))
    return schema


def objects(schema, path=()):
    """Every object of the schema, with the path of its keys."""
    schema = resolved(schema)
    if schema.get("type") == "object" or "properties" in schema:
        yield path, schema
        for key, part in schema.get("properties", {}).items():
            yield from objects(part, (*path, key))
        if isinstance(schema.get("additionalProperties"), dict):
            yield from objects(schema["additionalProperties"], (*path, "*"))
    if isinstance(schema.get("items"), dict):
        yield from objects(schema["items"], (*path, "item"))
    for way in schema.get("anyOf", []) + schema.get("oneOf", []) + schema.get("allOf", []):
        yield from objects(way, path)


def maps_and_leaves(value, path=()):
    """Every map of the default values, and every value that is none, by path."""
    yield path, value
    if isinstance(value, dict):
        for key, part in value.items():
            yield from maps_and_leaves(part, (*path, key))


MAPS = [path for path, value in maps_and_leaves(VALUES) if isinstance(value, dict)]
LEAVES = [path for path, value in maps_and_leaves(VALUES) if not isinstance(value, dict)]


def replaced(path, value):
    """The default values with another one somewhere."""
    values = json.loads(json.dumps(VALUES))
    if not path:
        return value
    at(values, path[:-1])[path[-1]] = value
    return values


def test_the_schema_is_a_schema_and_the_default_values_follow_it():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    VALIDATOR.validate(VALUES)


def test_every_object_of_the_schema_is_closed_or_says_what_is_in_it():
    left_open = {
        ".".join(path)
        for path, schema in objects(SCHEMA)
        if schema.get("additionalProperties", True) is True and not set(path) & OTHERS_OWN
    }
    assert left_open == set()


def test_every_default_is_in_the_schema_and_everything_in_the_schema_has_a_default():
    """Surveys are the exception: each has the keys of surveyDefaults, which have the defaults."""
    for path, schema in objects(SCHEMA):
        values = at(VALUES, path)
        if {"*", "item"} & set(path) or not values or "properties" not in schema:
            continue
        assert schema["properties"].keys() == values.keys(), ".".join(path)
    assert resolved(SCHEMA["properties"]["surveyDefaults"])["properties"].keys() == VALUES["surveyDefaults"].keys()


@pytest.mark.parametrize("path", [path for path in MAPS if not set(path) & OTHERS_OWN], ids=".".join)
def test_a_key_that_there_is_not_is_refused(path):
    new = replaced(path, {**at(VALUES, path), "no such key": []})
    assert not VALIDATOR.is_valid(new)


@pytest.mark.parametrize("path", LEAVES, ids=".".join)
def test_a_value_of_another_type_is_refused(path):
    old = at(VALUES, path)
    wrong = {"no": "such value"} if not isinstance(old, dict) else "no such value"
    assert not VALIDATOR.is_valid(replaced(path, wrong))
    if isinstance(old, bool):
        assert not VALIDATOR.is_valid(replaced(path, "true"))
    elif isinstance(old, int):
        assert not VALIDATOR.is_valid(replaced(path, "many"))
        assert not VALIDATOR.is_valid(replaced(path, -1))
    elif isinstance(old, list):
        assert not VALIDATOR.is_valid(replaced(path, "one"))


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"survey": {}}, r"additional properties 'survey' not allowed"),
        ({"surveys": {"q1": {"shedule": "0 2 * * *"}}}, r"additional properties 'shedule' not allowed"),
        ({"surveys": {"Q1": {}}}, r"'Q1' does not match pattern"),
        ({"image": {"pullPolicy": "Sometimes"}}, r"pullPolicy"),
        ({"images": {"api": {"digest": "sha256:abc"}}}, r"digest"),
        # To Kubernetes, a rule without peers lets everybody through.
        ({"networkPolicy": {"service": {"from": []}}}, r"networkPolicy/service/from': minItems"),
        ({"networkPolicy": {"objectStorage": {"to": []}}}, r"networkPolicy/objectStorage/to': minItems"),
    ],
)
def test_helm_refuses_what_the_schema_does_not_allow(helm, settings, told):
    with pytest.raises(RefusedError, match=told):
        helm.template(settings=settings)


def test_every_value_has_a_comment():
    """``# --`` stands above each value, or above the map that it is written into on one line."""
    lines = TEXT.splitlines()
    bare = []
    for number, line in enumerate(lines):
        found = re.match(r"( *)([\w.-]+):( *)(.*)$", line)
        # A key whose value stands on the lines below it is a section; its own keys have the comments.
        if found is None or found[4] == "" or found[4].startswith("#"):
            continue
        above = number - 1
        while above >= 0 and lines[above].startswith(f"{found[1]}#"):
            above -= 1
        comment = lines[above + 1 : number]
        documented = any(re.match(rf"{found[1]}# -- \S", text) for text in comment)
        if not documented and not _in_documented_map(lines, number, len(found[1])):
            bare.append(f"{number + 1}: {line.strip()}")
    assert bare == []


def _in_documented_map(lines, number, indent):
    """Whether a map or list that a line belongs to has a ``# --`` of its own."""
    for above in range(number - 1, -1, -1):
        text = lines[above]
        outer = len(text) - len(text.lstrip())
        if not text.strip() or text.lstrip().startswith("#") or outer >= indent:
            continue
        margin = " " * outer
        comments = itertools.takewhile(re.compile(f"{margin}#").match, reversed(lines[:above]))
        if any(comment.startswith(f"{margin}# -- ") for comment in comments):
            return True
        if not text.lstrip().startswith("- "):
            return False
        indent = outer
    return False


def test_there_is_a_file_of_values_for_each_kind_of_cluster():
    assert {file.stem for file in EXAMPLES} == {
        "values-laptop",
        "values-on-prem",
        "values-cloud",
        "values-kueue",
        "values-operator",
    }
    for file in EXAMPLES:
        assert yaml.safe_load(file.read_text()), file
