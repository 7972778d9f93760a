import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner.ensemble.bundle import BundleManifest, MemberEntry, Metric, parse_manifest
from scanner.ensemble.calibration import MeanProbability, OperatingPoint
from scanner.errors import ContentError
from scanner.records import MEMBER_BANDS, MEMBER_PIXELS, MEMBERS, sealed

PATH = Path("somewhere/bundle.json")
GOOD = BundleManifest(
    name="small",
    version="1",
    description="For tests.",
    members=[
        MemberEntry(name=name, bands=MEMBER_BANDS[name], pixels=MEMBER_PIXELS[name], parameters=9, source="")
        for name in MEMBERS
    ],
    preprocessing="minmax",
    class_prior=0.5,
    calibration=MeanProbability(),
    thresholds=[OperatingPoint(threshold=0.5, beta=0.03, prevalence=0.5, f_beta=0.9, precision=0.9, recall=0.2, n_selected=10)],
    metrics=[Metric(set="held out", member="grid", metric="auroc", value=0.9, low=0.8, high=0.95, n_pos=5, n_neg=5)],
    sha256={"ensemble.onnx": "0" * 64},
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


def _assert_one_sentence(text):
    """Parsed, or refused by the one error that names the file, in one line."""
    try:
        parse_manifest(text, PATH)
    except ContentError as error:
        message = str(error)
        assert message.startswith(f"{PATH}: ")
        assert "\n" not in message
        assert message.endswith((" again.", "update scanner."))


def test_a_manifest_survives_its_text():
    assert parse_manifest(GOOD.to_bytes(), PATH) == GOOD
    assert GOOD.decides_on == "calibrated"


@pytest.mark.parametrize("licence", ["CC-BY-4.0", "GPL-3.0-or-later", "Apache-2.0 WITH LLVM-exception", "MIT OR BSD-3-Clause"])
def test_a_licence_is_an_spdx_expression(licence):
    licensed = GOOD.model_copy(update={"licence": licence})
    assert parse_manifest(licensed.to_bytes(), PATH).licence == licence
    assert parse_manifest(GOOD.to_bytes(), PATH).licence is None


@pytest.mark.parametrize("licence", ["", "see the file", "MIT OR", "AND MIT", "<b>"])
def test_other_words_are_no_licence(licence):
    with pytest.raises(ContentError, match="licence"):
        parse_manifest(GOOD.model_copy(update={"licence": licence}).to_bytes(), PATH)


@given(st.binary(max_size=40))
def test_bytes_are_parsed_or_refused(text):
    with pytest.raises(ContentError):
        parse_manifest(text, PATH)
    _assert_one_sentence(text)


@given(st.sampled_from(sorted(BundleManifest.model_fields)), ANYTHING)
def test_any_value_of_any_key_is_parsed_or_refused(key, value):
    tree = GOOD.model_dump(mode="json")
    tree[key] = value
    _assert_one_sentence(sealed((json.dumps(tree, indent=2) + "\n").encode()))


@given(st.data())
def test_a_text_with_bytes_changed_is_parsed_or_refused(data):
    text = bytearray(GOOD.to_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        text[data.draw(st.integers(0, len(text) - 1))] = data.draw(st.integers(0, 255))
    _assert_one_sentence(bytes(text))
    unsealed = bytearray(GOOD.model_dump_json(indent=2).encode() + b"\n")
    unsealed[data.draw(st.integers(0, len(unsealed) - 1))] = data.draw(st.integers(0, 255))
    _assert_one_sentence(sealed(bytes(unsealed)))


@pytest.mark.parametrize("threshold", [float("nan"), -5.0, 1.5, float("inf"), "half"])
def test_a_threshold_is_a_probability(threshold):
    tree = GOOD.model_dump(mode="json")
    tree["thresholds"][0]["threshold"] = threshold
    with pytest.raises(ContentError, match=r"thresholds\.0\.threshold"):
        parse_manifest(sealed((json.dumps(tree, indent=2) + "\n").encode()), PATH)
