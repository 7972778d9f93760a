import pytest
from hypothesis import given
from hypothesis import strategies as st

from scanner import config
from scanner.errors import InputMissingError, UsageError


def test_later_sources_win(tmp_path):
    file = tmp_path / "scanner.toml"
    file.write_text("[targets]\nmagnitude_limit = 21.0\nmin_area_pixels = 7\n[cutouts]\nkeep = 'all'\n")
    environment = {"SCANNER_TARGETS__MAGNITUDE_LIMIT": "22.0", "SCANNER_CUTOUTS__KEEP": "none", "UNRELATED": "1"}
    loaded = config.load(file, {"targets.magnitude_limit": 23.5, "cutouts.codec": None}, environment)
    assert loaded.targets.magnitude_limit == 23.5
    assert loaded.targets.min_area_pixels == 7
    assert loaded.cutouts.keep == "none"
    assert loaded.cutouts.codec == "compact"


def test_none_lifts_the_limit():
    assert config.load(None, {}, {"SCANNER_TARGETS__MAGNITUDE_LIMIT": "none"}).targets.magnitude_limit is None


def test_none_is_nothing_only_where_there_may_be_nothing(tmp_path):
    file = tmp_path / "scanner.toml"
    file.write_text("[targets]\nmagnitude_limit = 'none'\n[cutouts]\nkeep = 'none'\n[explain]\nwhich = 'candidates'\n")
    loaded = config.load(file, {"explain.which": "none"}, {})
    assert loaded.targets.magnitude_limit is None
    assert (loaded.cutouts.keep, loaded.explain.which) == ("none", "none")
    assert config.load(file, {}, {"SCANNER_EXPLAIN__WHICH": "none"}).explain.which == "none"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        (
            "[targets]\nmagnitude_limt = 3",
            r"no setting targets\.magnitude_limt; did you mean targets\.magnitude_limit\?",
        ),
        ("[scoring]\nkeep = 'all'", r"there is no setting scoring\.keep; did you mean cutouts\.keep\?"),
        ("[target]\nsource = 'grid'", r"there is no setting target; did you mean targets\?"),
        ("[cutouts]\nkeep = 'most'", "cutouts.keep"),
        ("[cutouts]\nkeep = 'sample:1.5'", "cutouts.keep"),
        ("[scoring]\nbeta = -1", "scoring.beta"),
        ("[scoring]\nprovider = 'abacus'", "scoring.provider"),
        ("targets = 3", "targets"),
        ("[targets", "TOML"),
    ],
)
def test_bad_settings_are_named(tmp_path, text, named):
    file = tmp_path / "scanner.toml"
    file.write_text(text)
    with pytest.raises(UsageError, match=named) as caught:
        config.load(file, environment={})
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_missing_file(tmp_path):
    with pytest.raises(InputMissingError, match=r"nowhere\.toml"):
        config.load(tmp_path / "nowhere.toml")


@given(st.floats(0.001, 1.0))
def test_every_fraction_is_a_keep_rule(fraction):
    keep = f"sample:{fraction:.6f}"
    assert config.load(None, {"cutouts.keep": keep}, {}).cutouts.keep == keep
