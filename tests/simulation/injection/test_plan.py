import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from scanner.errors import UsageError
from scanner.records import BANDS, BandFiles, ImageRef, Tile
from scanner.simulation.datasets.presets import PRESETS
from scanner.simulation.injection.painting import REAL_CLASSES, class_shares, decoys, kind_of, make_plan, paint_object
from scanner.simulation.injection.places import DEFLECTOR, EMPTY, GALAXY, InjectionRequest, Places
from scanner.simulation.light.components import total_flux

TILES = tuple(
    Tile(tile_id=name, bands={band: BandFiles(image=ImageRef(path=f"{name}-{band}.fits")) for band in BANDS}) for name in "ab"
)
HOST = 20.0, 1.8, 0.8, 0.3


def places(n, seed):
    rng = np.random.default_rng(seed)
    kind = np.repeat(np.array([DEFLECTOR, GALAXY, EMPTY], dtype=np.int8), n)
    x, y = rng.uniform(0.0, 20_000.0, (2, 3 * n))
    unknown = np.full(3 * n, np.nan)
    return Places(kind, np.arange(3 * n), x / 1e4, y / 1e4, x, y, unknown, unknown, unknown, unknown)


def request(**changes):
    return InjectionRequest(**({"preset": "train", "n_objects": 200, "seed": 4, "tiles": TILES} | changes))


def test_every_place_is_used_once_and_is_of_the_kind_that_the_class_needs():
    plan = make_plan(request(), [places(150, 1), places(150, 2)])
    assert len(plan) == 200
    assert (np.diff(plan.tile) >= 0).all()
    used = {(int(t), float(x), float(y)) for t, x, y in zip(plan.tile, plan.places.x, plan.places.y, strict=True)}
    assert len(used) == 200
    kinds = [kind_of(name, bool(sky)) for name, sky in zip(plan.class_name, plan.into_sky, strict=True)]
    assert plan.places.kind.tolist() == kinds
    again = make_plan(request(), [places(150, 1), places(150, 2)])
    assert again.class_name == plan.class_name
    assert np.array_equal(again.places.x, plan.places.x)


def test_grounds():
    found = [places(400, 1), places(400, 2)]
    assert make_plan(request(ground="sky"), found).into_sky.all()
    assert not make_plan(request(ground="galaxies"), found).into_sky.any()
    assert make_plan(request(preset="double-ring", ground="galaxies"), found).into_sky.all()
    painted = make_plan(request(ground="galaxies", mosaics=True), found)
    assert not set(painted.class_name) & set(REAL_CLASSES)


def test_too_few_places_are_counted():
    with pytest.raises(UsageError, match=r"--n 200 is more than the 2 tiles hold: \d+ bright early-type galaxies are needed"):
        make_plan(request(), [places(3, 1), places(3, 2)])
    with pytest.raises(UsageError, match="200 empty places are needed and there are 6"):
        make_plan(request(ground="sky"), [places(3, 1), places(3, 2)])


@pytest.mark.parametrize("preset", PRESETS.values(), ids=PRESETS)
def test_lenses_are_as_many_on_both_grounds(preset):
    for into_sky in (False, True):
        shares = class_shares(preset, into_sky)
        assert sum(shares.values()) == pytest.approx(1.0)
        lenses = sum(share for name, share in shares.items() if kind_is_lens(name))
        assert lenses == pytest.approx(preset.lens_share)


def kind_is_lens(name):
    return name in ("lens", "quasar_lens", "compound_arc", "double_ring")


def test_half_of_the_non_lenses_on_galaxies_are_painted():
    shares = class_shares(PRESETS["train"], False)
    others = {name: share for name, share in shares.items() if not kind_is_lens(name)}
    painted = sum(share for name, share in others.items() if name not in REAL_CLASSES)
    assert painted / sum(others.values()) == pytest.approx(0.5)


def test_that_something_is_painted_tells_nothing_of_the_label():
    """Every object gets unrelated painted light, and how much does not depend on its class."""
    rng = np.random.default_rng(9)
    is_lens, unrelated = [], []
    for _ in range(600):
        name = str(rng.choice(["lens", "near_lens", "companion", "tangential", "real_deflector", "real_galaxy"]))
        drawn = paint_object(rng, name, False, HOST, PRESETS["train"].options)
        is_lens.append(bool(drawn.systems) and name == "lens")
        x, y = rng.uniform(-4.0, 4.0, 2)
        light = decoys(rng, x, y)
        unrelated.append(total_flux(light)[0])
        # A galaxy's knots may reach a little further than its middle.
        assert min(np.hypot(part.x - x, part.y - y) for part in light) > 2.5
        assert max(abs(part.x) for part in light) < 10.0
        assert (not drawn.components and not drawn.systems) == (name in REAL_CLASSES)
    assert min(unrelated) > 0.0
    # 600 objects, 100 of them lenses: a standard deviation of 0.032 about one half.
    assert roc_auc_score(is_lens, unrelated) == pytest.approx(0.5, abs=0.1)


def test_own_objects_are_any_of_the_surveys_and_places_are_used_again_only_when_all_were_used():
    found = [places(100, 1)]
    found[0].kind[:80] = GALAXY
    plan = make_plan(request(n_objects=300, ground="galaxies", own_share=0.75, uses=12), found)
    names = np.array(plan.class_name)
    own = np.isin(names, REAL_CLASSES)
    lenses = names == "lens"
    assert own.sum() / (~lenses).sum() == pytest.approx(0.75, abs=0.08)
    # 20 early-type galaxies, 180 others: as they are, each is as likely as any other.
    assert (names == "real_deflector").sum() / (own & (names != "real_sky")).sum() == pytest.approx(0.1, abs=0.07)
    deflectors = plan.places.kind == DEFLECTOR
    uses = np.bincount(plan.places.target_id[deflectors].astype(int))
    assert set(uses[uses > 0].tolist()) <= {deflectors.sum() // 20, deflectors.sum() // 20 + 1}
    with pytest.raises(UsageError, match=r"early-type galaxies are needed and there are 20;"):
        make_plan(request(n_objects=300, ground="galaxies", own_share=0.75), found)
