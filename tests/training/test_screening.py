"""Setting a screen: its limit, what it loses, and what is refused."""

from dataclasses import replace

import numpy as np
import pytest
from scans import plain_bundle
from tiny_network import ALL, light_bundle, write_network, write_rings

import scanner
from scanner.cli.main import main
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Screen, content_of, lost_at, write_bundle
from scanner.ensemble.session import open_session
from scanner.errors import ContentError, UsageError
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS
from scanner.training.added_member import NewMember, add_member
from scanner.training.screening import losses, screen_graph


def test_a_loss_is_counted_among_the_lenses_that_are_found_without_a_screen():
    score = np.concatenate([np.arange(100.0), np.arange(1000.0) / 1000 * 50])
    is_lens = np.arange(1100) < 100
    passes = np.ones(1100, bool)
    # Of the lenses from 50 upwards, which no non-lens reaches, the screen loses two; of those beneath, ten.
    passes[[70, 90, *range(10)]] = False
    passes[100:] = np.arange(1000) % 10 == 0
    found = {metric.metric: metric for metric in losses("set", score, passes, is_lens)}
    assert found.keys() == {lost_at(1e-2), lost_at(1e-3)}
    # Ten non-lenses may pass, down to 49.45: the lenses from 50 upwards stand above. One may: the same fifty.
    for metric in found.values():
        assert metric.value == pytest.approx(2 / 50)
        assert 0 <= metric.low < 2 / 50 < metric.high < 0.2
        assert (metric.n_pos, metric.n_neg, metric.set, metric.member) == (100, 1000, "set", "screen")
    (first, _) = losses("set", score, np.ones(1100, bool), is_lens)
    assert (first.value, first.low) == (0.0, 0.0)
    assert first.high == pytest.approx(0.0713, abs=0.01)


def test_nothing_is_measured_without_lenses_or_where_too_few_non_lenses_may_pass():
    assert losses("set", np.arange(50.0), np.ones(50, bool), np.zeros(50, bool)) == ()
    assert losses("set", np.arange(50.0), np.ones(50, bool), np.arange(50) > 25) == ()


@pytest.fixture(scope="module")
def rings(tmp_path_factory):
    return write_rings(tmp_path_factory.mktemp("rings") / "rings")


def test_a_finished_bundle_gets_a_screen(rings, tmp_path, capsys):
    words = ["models", "screen", plain_bundle(), "--data", rings, "--share", 0.25, "--version", "next", "--provider", "cpu"]
    words += ["--member", "OU-66", "--member", "OU-J", "--cache", tmp_path / "cache", "--out", tmp_path / "screened"]
    with pytest.raises(SystemExit) as stopped:
        main([str(word) for word in words])
    assert stopped.value.code == 0
    assert "used where a scan asks for it; lenses lost: not measured" in " ".join(capsys.readouterr().out.split())
    before, made = bundles.load(plain_bundle()), bundles.load(tmp_path / "screened")
    assert (made.manifest.version, made.model) == ("next", before.model)
    screen = made.manifest.screen
    assert (screen.members, screen.share, screen.lost) == (("OU-J", "OU-66"), 0.25, ())
    data = LabelledSet(rings)
    (batch, vis, nisp) = next(data.batches(np.arange(len(data)), len(data)))
    first = open_session(made, "cpu", screens=True).screen_logits(vis, nisp, batch.sky, batch.sigma)
    level = made.screening("bundle").calibration.log_odds(first)
    assert screen.log_odds_above == pytest.approx(np.quantile(level[~data.truth.is_lens], 0.75))
    card = (tmp_path / "screened" / "MODEL_CARD.md").read_text()
    assert card.startswith(f"# {before.manifest.name} next\n")
    assert "OU-J, OU-66 score every object" in card
    assert card.rstrip().endswith("Not measured: there were too few lenses or non-lenses.")
    again = scanner.set_screen(made, rings, tmp_path / "again", cache=tmp_path / "cache", provider="cpu")
    assert (again.manifest.version, again.manifest.screen.members) == ("next+screen", ("OU-66",))
    assert (tmp_path / "again" / "MODEL_CARD.md").read_text().count("## Screening") == 1


@pytest.mark.parametrize(
    ("changed", "error", "says"),
    [
        ({"version": "same"}, UsageError, "is untrained same already"),
        ({"trained_on": "itself"}, UsageError, "was trained on it"),
        ({"few": True}, ContentError, "20 lenses and as many others are needed"),
    ],
)
def test_what_makes_no_screen_is_refused(rings, tmp_path, changed, error, says):
    content = content_of(bundles.load(plain_bundle()))
    trained_on = (LabelledSet(rings).fingerprint,) if "trained_on" in changed else ()
    bundle = write_bundle(tmp_path / "old", replace(content, name="untrained", version="same", trained_on=trained_on))
    data = write_rings(tmp_path / "few", 12) if "few" in changed else rings
    with pytest.raises(error, match=says):
        scanner.set_screen(bundle, data, tmp_path / "new", version=changed.get("version", "new"), provider="cpu")
    assert not (tmp_path / "new").exists()


def test_a_graph_of_somebody_else_gives_no_members(tmp_path):
    with pytest.raises(ContentError, match="was not exported by scanner"):
        screen_graph(light_bundle(tmp_path / "light").model, ("OU-66",))
    with pytest.raises(ContentError, match="no ONNX file"):
        screen_graph(b"\x00nothing", ("OU-66",))


def test_a_further_member_renews_the_screen(rings, tmp_path):
    content = content_of(light_bundle(tmp_path / "light"))
    old = Screen(members=("OU-66",), log_odds_above=123.0, share=0.25)
    bundle = write_bundle(tmp_path / "old", replace(content, screen=old, screen_model=b"graph"))
    member = NewMember(write_network(tmp_path / "ring.onnx"), "ring", ALL, 100)
    made = add_member(bundle, member, LabelledSet(rings), tmp_path / "new", provider="cpu").bundle
    chosen = np.array([name == "OU-66" for name in (*MEMBERS, "ring")])
    alone = made.calibration.distilled(chosen, made.calibration_set.logits)
    level = alone.log_odds(made.calibration_set.logits[~LabelledSet(rings).truth.is_lens])
    assert made.manifest.screen.log_odds_above == pytest.approx(np.quantile(level, 0.75))
    assert made.screen_model == b"graph"
