"""What a survey's tiles give to an adaptation: fields apart, labels believed and divided, plans kept."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scanner.errors import ContentError, UsageError
from scanner.labelled_set import LabelledSet, writing_labelled_set
from scanner.labels.importing import TRUTH_SCHEMA, ImportedSetRecord
from scanner.records import BANDS, BandFiles, CutoutBatch, ImageRef, Targets, Tile
from scanner.simulation.injection.places import DEFLECTOR, GALAXY, Places, within
from scanner.sphere import cell_numbers, chord, unit_vectors
from scanner.training import adaptation
from scanner.training.adaptation import MARGIN_ARCSEC, AdaptationPlan, AdaptationRequest
from scanner.training.data import TrainingData

TILE = Tile(tile_id="a", bands={band: BandFiles(image=ImageRef(path=f"/a-{band}.fits")) for band in BANDS})


def write_set(folder, ra, dec, is_lens, weight=None, purpose="training"):
    """A labelled set of dark cutouts at positions."""
    n = len(ra)
    weights = np.ones(n) if weight is None else weight
    targets = Targets(np.arange(n), np.asarray(ra), np.asarray(dec), np.zeros(n), np.zeros(n), np.full(n, 20, np.float32))
    batch = CutoutBatch(
        targets=targets,
        vis=np.zeros((n, 200, 200), np.float32),
        nisp=np.zeros((n, 3, 66, 66), np.float32),
        x0=np.zeros(n, np.int64),
        y0=np.zeros(n, np.int64),
        offset=np.zeros((n, 2), np.float32),
        bad_fraction=np.zeros((n, 4), np.float32),
        sky=np.zeros((n, 4), np.float32),
        sigma=np.ones((n, 4), np.float32),
        flags=np.zeros(n, np.uint32),
    )
    truth = [
        {"is_lens": bool(lens), "visible": bool(lens), "class_name": "x", "arc_snr": np.nan, "ra": ra[k], "dec": dec[k]}
        | {"field": f"f{k}", "source_row": k, "source_id": "", "source_file": "", "source_label": "", "theta_e_arcsec": np.nan}
        | {"weight": float(weights[k])}
        for k, lens in enumerate(is_lens)
    ]
    record = ImportedSetRecord(
        purpose=purpose, source="t", source_sha256="", columns={}, pixels="", label_preset=None, lens=(), not_lens=()
    )
    with writing_labelled_set(folder, TRUTH_SCHEMA, "labels") as writer:
        writer.append(batch, truth)
        writer.finish(record)
    return LabelledSet(folder)


def sky(n, seed, side_deg=0.3):
    rng = np.random.default_rng(seed)
    return 150.0 + rng.uniform(0, side_deg, n), 2.0 + rng.uniform(0, side_deg, n)


def plan_of(ra, dec, out=None):
    request = AdaptationRequest(tiles=(TILE,), tile_fingerprints={"a": "1"}, bundle="b", n_objects=100, seed=1, seconds=60.0)
    order, held_out = adaptation.divide(ra, dec)
    return AdaptationPlan(request=request, order=order, held_out=held_out)


@settings(max_examples=20)
@given(n=st.integers(200, 2000), seed=st.integers(0, 5), side=st.floats(0.03, 5.0))
def test_a_fifth_of_the_sky_is_held_out_and_no_cutouts_of_both_sides_overlap(n, seed, side):
    ra, dec = sky(n, seed, side)
    plan = plan_of(ra, dec)
    judging = plan.judges(ra, dec)
    assert 0.0 < judging.mean() <= 0.3
    cells = cell_numbers(ra, dec, plan.order)
    assert not set(cells[judging].tolist()) & set(cells[~judging].tolist())
    places = Places(np.full(n, GALAXY, np.int8), np.arange(n), ra, dec, *np.zeros((6, n)))
    train, judge = (within(places, plan.region(held_out=side)) for side in (False, True))
    if len(train) and len(judge):
        distance = np.linalg.norm(unit_vectors(train.ra, train.dec)[:, None] - unit_vectors(judge.ra, judge.dec), axis=2)
        assert distance.min() > chord(2 * MARGIN_ARCSEC * 0.9)


def test_too_few_objects_are_refused():
    with pytest.raises(UsageError, match=r"the tiles hold 30 objects in \d+ cells of the sky, too few to train on some"):
        adaptation.divide(*sky(30, 1))


def test_people_are_believed(tmp_path):
    ra, dec = sky(3000, 2)
    own = np.stack([ra, dec, np.arange(3000.0)], axis=1)
    assert adaptation.left_out(own, []) == tuple(zip(ra[:-4:-1].tolist(), dec[:-4:-1].tolist(), strict=True))
    # The highest score of all is no lens, says a person; that with the lowest is one.
    labels = write_set(tmp_path / "graded", ra[[2999, 0]], dec[[2999, 0]], [False, True])
    assert adaptation.left_out(own, [labels]) == tuple((ra[k], dec[k]) for k in (2998, 2997, 0))
    avoided = adaptation.left_out(own, [labels])
    region = plan_of(ra, dec).region(held_out=False).model_copy(update={"avoided": avoided, "first": 0, "stop": 2**62})
    places = Places(np.full(3000, DEFLECTOR, np.int8), np.arange(3000), ra, dec, *np.zeros((6, 3000)))
    gone = set(range(3000)) - set(within(places, region).target_id.tolist())
    assert {2998, 2997, 0} <= gone
    assert 2999 not in gone


def test_labels_are_divided_by_field_and_keep_their_weights(tmp_path):
    ra, dec = sky(500, 3)
    plan = plan_of(ra, dec)
    ra, dec = np.append(ra[:60], np.nan), np.append(dec[:60], np.nan)
    weight = np.linspace(0.0, 2.0, 61)
    labels = write_set(tmp_path / "set", ra, dec, np.arange(61) % 3 == 0, weight)
    paths = tmp_path / "train", tmp_path / "judge"
    assert adaptation.divide_labels(plan, labels, *paths) == paths
    train, judge = map(LabelledSet, paths)
    rows = [one.column("source_row").astype(int) for one in (train, judge)]
    assert set(rows[1]) == set(np.flatnonzero(plan.judges(ra, dec)))
    assert 60 in rows[0]
    apart = np.linalg.norm(
        unit_vectors(train.store.ra[:-1], train.store.dec[:-1])[:, None] - unit_vectors(judge.store.ra, judge.store.dec), axis=2
    )
    assert apart.min() > chord(2 * MARGIN_ARCSEC * 0.999)
    assert train.column("weight").tolist() == weight[rows[0]].tolist()
    assert (judge.is_for_evaluation_only, train.is_for_evaluation_only) == (True, False)
    assert TrainingData([paths[0]]).labels.weight.tolist() == weight[rows[0]].astype(np.float32).tolist()
    # A bundle that was trained on a part has seen the set.
    assert labels.was_seen_by(TrainingData([paths[0]]).seen)
    assert not judge.was_seen_by(TrainingData([paths[0]]).seen)
    with pytest.raises(UsageError, match="is for evaluation only and must never be trained on"):
        TrainingData([paths[1]])


def test_what_contradicts_or_must_not_be_trained_on_is_refused(tmp_path):
    ra, dec = sky(4, 4)
    one = write_set(tmp_path / "one", ra[:3], dec[:3], [True, False, False])
    other = write_set(tmp_path / "other", ra[2:], dec[2:], [True, False])
    twice = write_set(tmp_path / "twice", ra[:1], dec[:1], [True])
    exam = write_set(tmp_path / "exam", ra[3:], dec[3:], [True], purpose="evaluation")
    adaptation.refuse_contradictions([one])
    with pytest.raises(UsageError, match=rf"other: the object at {ra[2]:.5f} .* is in .*one too, with another verdict"):
        adaptation.refuse_contradictions([one, other])
    with pytest.raises(UsageError, match=r"is in .*one too, with the same verdict; import both tables as one"):
        adaptation.refuse_contradictions([one, twice])
    with pytest.raises(UsageError, match="exam: is for evaluation only"):
        adaptation.refuse_contradictions([one, exam])


def test_weights_that_are_none_are_refused(tmp_path):
    write_set(tmp_path / "set", *sky(4, 5), [True, False, True, False], np.array([1.0, -1.0, 1.0, 1.0]))
    with pytest.raises(ContentError, match="has weights that are negative or no numbers"):
        TrainingData([tmp_path / "set"])


def test_a_plan_is_kept_and_others_are_refused(tmp_path, sky_files):
    tile, paths = sky_files
    request = AdaptationRequest(
        tiles=(tile,), tile_fingerprints=adaptation.tile_fingerprints([tile]), bundle="b", n_objects=100, seed=1, seconds=60.0
    )
    plan = adaptation.begin(request, tmp_path / "out")
    assert adaptation.begin(request, tmp_path / "out") == plan
    with pytest.raises(UsageError, match="holds an adaptation with other n objects; choose another --out"):
        adaptation.begin(request.model_copy(update={"n_objects": 101}), tmp_path / "out")
    paths["VIS"].write_bytes(b"another exposure")
    changed = request.model_copy(update={"tile_fingerprints": adaptation.tile_fingerprints([tile])})
    with pytest.raises(UsageError, match="holds an adaptation with other tile fingerprints"):
        adaptation.begin(changed, tmp_path / "out")
    (tmp_path / "out" / "plan.json").write_text("{}")
    with pytest.raises(ContentError, match="no plan of an adaptation"):
        adaptation.begin(request, tmp_path / "out")


@pytest.fixture
def sky_files(tmp_path):
    paths = {band: tmp_path / f"{band}.fits" for band in BANDS}
    for path in paths.values():
        path.write_bytes(b"pixels")
    bands = {band: BandFiles(image=ImageRef(path=str(path))) for band, path in paths.items()}
    return Tile(tile_id="a", bands=bands), paths
