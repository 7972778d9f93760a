"""What a survey's own tiles give to adapt a bundle to it: fields kept apart, its objects scored, labels divided by field."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray
from pydantic import Field

from scanner import __version__
from scanner.atomic_file import replacement, write_atomically, writing_to
from scanner.config import CutoutsConfig, StorageConfig, TargetsConfig
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import open_session
from scanner.errors import InputMissingError, TileError, UsageError
from scanner.labelled_set import DESCRIPTION, TRUTH, LabelledSet, writing_labelled_set
from scanner.processes import run_all
from scanner.records import (
    VIS_CUTOUT_PIXELS,
    VIS_PIXEL_SCALE_ARCSEC,
    Float64,
    Int64,
    Record,
    SealedRecord,
    Targets,
    Tile,
)
from scanner.simulation import Ground, PresetName
from scanner.simulation.datasets.presets import PRESETS
from scanner.simulation.injection.painting import real_ground
from scanner.simulation.injection.places import (
    AVOIDED_ARCSEC,
    DEFLECTOR,
    GALAXY,
    InjectionRequest,
    Places,
    Region,
    survey_tile,
    within,
)
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import open_tile
from scanner.sphere import cell_numbers, nearest
from scanner.survey.folder import fingerprint

PLAN, TILES = "plan.json", "tiles"
#: Share of the objects whose cells judge the bundle, before and after, and are never trained on.
HELD_OUT_SHARE = 0.2
#: Share of the survey's objects that are not taken for non-lenses: those that the bundle ranks highest hold its lenses.
LEFT_OUT_SHARE = 1e-3
#: Cells are the largest of which there are so many: of 27′ (order 7) in a wide survey, down to 13″ in a single image.
FEWEST_CELLS, ORDERS = 50, range(7, 15)
#: Two cutouts whose centres are this far from the border of their regions have no pixel in common.
MARGIN_ARCSEC = VIS_CUTOUT_PIXELS * VIS_PIXEL_SCALE_ARCSEC / np.sqrt(2.0)
#: Share of what is painted that lies on real galaxies, as far as these reach; of its non-lenses, the share of the survey's own.
GALAXY_SHARE, OWN_SHARE = 0.6, 0.75
#: Most objects painted with one place, each another one, shifted and seen from another side.
USES = 4
#: Most objects of each of the two sets that judge, each at most half as large as what is trained on.
HELD_OUT_OBJECTS = 8_000
#: A kind of place runs short of what was drawn for it only if that was drawn much oftener than on average.
_RESERVE = 0.9
_BATCH = 64
_AGAIN = "choose another --out, or remove this one to begin anew"


class AdaptationRequest(Record):
    """What a bundle is adapted to, and with what."""

    tiles: tuple[Tile, ...] = Field(min_length=1)
    tile_fingerprints: dict[str, str] = Field(description="Hash of each tile's files, by its id.")
    bundle: str = Field(description="Fingerprint of the bundle.")
    labels: tuple[str, ...] = Field((), description="Fingerprints of sets of labels.")
    data: tuple[str, ...] = Field((), description="Fingerprints of simulated sets that are trained on too.")
    targets: TargetsConfig = TargetsConfig()
    n_objects: int = Field(ge=1, description="Objects to paint and to train on, as far as the tiles have room.")
    seed: int = Field(ge=0, lt=2**63)
    seconds: float = Field(gt=0, description="Time that training takes.")


class AdaptationPlan(SealedRecord):
    """``plan.json``: fields, objects that are left out, and what is painted; ``complete`` once all of it is known."""

    format_version: Literal[1] = 1
    scanner_version: str = __version__
    request: AdaptationRequest
    complete: bool = False
    order: int = Field(0, description="Of the HEALPix cells that are the fields.")
    held_out: int = Field(0, description="Cells from this nested number on judge; those before are trained on.")
    n_own: int = Field(0, description="Objects of the tiles that a scan would score, in the cells to train on.")
    left_out: tuple[tuple[float, float], ...] = Field(
        (), description="Right ascension and declination of those not taken for non-lenses: ranked highest, or labelled lenses."
    )
    n_on_galaxies: int = 0
    n_on_sky: int = 0
    n_held_out_lenses: int = 0
    n_held_out_own: int = 0

    def region(self, *, held_out: bool) -> Region:
        """Where one side is painted. What the bundle ranks high is left out of training only: there it would be an excuse."""
        first, stop = (self.held_out, 12 * 4**self.order) if held_out else (0, self.held_out)
        avoided = () if held_out else self.left_out
        return Region(order=self.order, first=first, stop=stop, margin_arcsec=float(MARGIN_ARCSEC), avoided=avoided)

    def judges(self, ra: Float64, dec: Float64) -> NDArray[np.bool_]:
        """Which positions, degrees, lie in cells that judge, (N,) bool; those that are nowhere do not."""
        found = np.zeros(len(ra), dtype=bool)
        known = np.isfinite(ra) & np.isfinite(dec)
        found[known] = cell_numbers(ra[known], dec[known], self.order) >= self.held_out
        return found

    def painting(self) -> dict[str, InjectionRequest]:
        """What is painted, by the name of its folder: two sets to train on and two that judge."""

        def asked(preset: PresetName, n: int, ground: Ground, held_out: bool, own: float) -> InjectionRequest:
            return InjectionRequest(
                preset=preset,
                n_objects=n,
                seed=self.request.seed,
                tiles=self.request.tiles,
                ground=ground,
                region=self.region(held_out=held_out),
                own_share=own,
                uses=USES,
            )

        return {
            "on-galaxies": asked("train", self.n_on_galaxies, "galaxies", False, OWN_SHARE),
            "on-sky": asked("train", self.n_on_sky, "sky", False, OWN_SHARE),
            "held-out-lenses": asked("survey", self.n_held_out_lenses, "galaxies", True, OWN_SHARE),
            "held-out-sky": asked("challenge", self.n_held_out_own, "galaxies", True, 1.0).model_copy(update={"uses": 1}),
        }


TRAINING_SETS, JUDGING_SETS = ("on-galaxies", "on-sky"), ("held-out-lenses", "held-out-sky")


def begin(request: AdaptationRequest, out: Path) -> AdaptationPlan:
    """Leave the request in the folder, or read the plan that is there.

    Raises
    ------
    UsageError
        The folder holds another adaptation, or the files of its tiles have changed since.
    ContentError
        Its plan is damaged.
    """
    path = out / PLAN
    if not path.exists():
        plan = AdaptationPlan(request=request)
        write_atomically(path, plan.to_bytes())
        return plan
    plan = AdaptationPlan.from_bytes(path.read_bytes(), path, _AGAIN, wrong="no plan of an adaptation")
    for name in AdaptationRequest.model_fields:
        if getattr(plan.request, name) != getattr(request, name):
            raise UsageError(f"{out}: holds an adaptation with other {name.replace('_', ' ')}; {_AGAIN}.")
    return plan


def tile_fingerprints(tiles: Sequence[Tile]) -> dict[str, str]:
    """Hash of each tile's files, by its id.

    Raises
    ------
    InputMissingError
        A file cannot be read.
    """
    try:
        return {tile.tile_id: fingerprint.of_tile(tile, StorageConfig()) for tile in tiles}
    except TileError as error:
        raise InputMissingError(str(error)) from None


Report = Callable[[str, int, int], None]


def complete_plan(
    plan: AdaptationPlan, bundle: Bundle, labels: Sequence[LabelledSet], out: Path, workers: int, report: Report
) -> AdaptationPlan:
    """List the tiles' objects, divide the sky into fields, score what is to be trained on, and count places.

    Parameters
    ----------
    plan
        As :func:`begin` left it; a complete one is returned as it is.
    bundle, labels
        What scores; what was labelled by people, who are believed.
    out
        Folder of the adaptation; what one tile gave is kept there, so that a call that was stopped goes on.
    workers
        Processes, one a tile.
    report
        Called with what is done, and how many tiles of how many are.

    Raises
    ------
    InputMissingError
        A tile cannot be used.
    UsageError
        The tiles hold too few objects; labels contradict one another.
    """
    if plan.complete:
        return plan
    request, numbers = plan.request, range(len(plan.request.tiles))
    refuse_contradictions(labels)
    with writing_to(out):
        (out / TILES).mkdir(exist_ok=True)
    listed = [(request, number, _file(out, "tile", number)) for number in numbers]
    _run_missing(_list_tile, listed, workers, lambda done: report("listing objects", done, len(listed)))
    tiles = [_Listed.read(path) for *_, path in listed]
    ra, dec = (np.concatenate([getattr(tile, name) for tile in tiles]) for name in ("ra", "dec"))
    order, held_out = divide(ra, dec)
    plan = plan.model_copy(update={"order": order, "held_out": held_out})
    scored = [(plan, bundle.path, number, _file(out, "scores", number)) for number in numbers]
    _run_missing(_score_tile, scored, workers, lambda done: report("scoring objects", done, len(scored)))
    own = np.concatenate([np.load(path) for *_, path in scored])
    plan = plan.model_copy(update={"n_own": len(own), "left_out": left_out(own, labels)})
    plan = plan.model_copy(update=_amounts(plan, [tile.places for tile in tiles]) | {"complete": True})
    write_atomically(out / PLAN, plan.to_bytes())
    return plan


def _run_missing(
    function: Callable[..., None], calls: Sequence[tuple[Any, ...]], workers: int, report: Callable[[int], None]
) -> None:
    """Make the calls whose last argument, a file, is not there."""
    missing = [call for call in calls if not call[-1].exists()]
    for done in run_all(function, missing, workers):
        report(len(calls) - len(missing) + done)


def divide(ra: Float64, dec: Float64) -> tuple[int, int]:
    """Divide objects by HEALPix cells: the order of the cells, and the number from which on they are held out.

    Cells with numbers in a row lie side by side, so that few objects are near the border between the two sides.

    Raises
    ------
    UsageError
        There are too few objects.
    """
    for order in ORDERS:
        cells, counts = np.unique(cell_numbers(ra, dec, order), return_counts=True)
        if len(cells) >= FEWEST_CELLS:
            break
    else:
        raise UsageError(
            f"the tiles hold {len(ra):,} objects in {len(cells)} cells of the sky, too few to train on some and be judged by "
            "others; give more tiles, or a fainter --magnitude-limit."
        )
    is_held_out = np.cumsum(counts[::-1])[::-1] <= max(HELD_OUT_SHARE * len(ra), counts[-1])
    return order, int(cells[is_held_out][0])


def left_out(own: Float64, labels: Sequence[LabelledSet]) -> tuple[tuple[float, float], ...]:
    """Positions of objects that are not to be taken for non-lenses.

    Parameters
    ----------
    own
        (N, 3) right ascension, declination and score.
    labels
        Objects that people called non-lenses are none of them, whatever their score; lenses are, whatever theirs.
    """
    top = own[np.argsort(-own[:, 2], kind="stable")[: int(np.ceil(LEFT_OUT_SHARE * len(own)))], :2]
    places, is_lens = labelled_places(labels)
    if len(top) and (~is_lens).any():
        top = top[_distance(top, places[~is_lens]) > AVOIDED_ARCSEC]
    return tuple((float(a), float(b)) for a, b in np.concatenate([top, places[is_lens]]).tolist())


def labelled_places(labels: Sequence[LabelledSet]) -> tuple[Float64, NDArray[np.bool_]]:
    """Positions (N, 2) in degrees, and verdicts, of the rows of all sets that have one."""
    places = np.concatenate([np.empty((0, 2)), *(np.stack([one.store.ra, one.store.dec], axis=1) for one in labels)])
    is_lens = np.concatenate([np.empty(0, dtype=bool), *(one.truth.is_lens for one in labels)])
    known = np.isfinite(places).all(axis=1)
    return places[known], is_lens[known]


def refuse_contradictions(labels: Sequence[LabelledSet]) -> None:
    """Refuse sets of which one has for a lens what is none in another, or the same object.

    Raises
    ------
    UsageError
        There is such an object, or a set that nothing may be trained on.
    """
    for one in labels:
        if one.is_for_evaluation_only:
            raise UsageError(f"{one.path}: is for evaluation only and must never be trained on; leave it out of --labels.")
    for number, one in enumerate(labels):
        for other in labels[:number]:
            (here, mine), (there, theirs) = labelled_places([one]), labelled_places([other])
            if not len(here) or not len(there):
                continue
            distance_arcsec, index = nearest(*here.T, *there.T)
            same = distance_arcsec < 1.0
            if same.any():
                k = int(np.flatnonzero(same)[0])
                what = "the same verdict" if mine[k] == theirs[index[k]] else "another verdict"
                raise UsageError(
                    f"{one.path}: the object at {here[k, 0]:.5f} {here[k, 1]:+.5f} is in {other.path} too, with {what}; import "
                    "both tables as one, or leave the object out of one of them."
                )


def _distance(places: Float64, others: Float64) -> Float64:
    """Arcseconds from each of (N, 2) positions to the nearest of others."""
    return nearest(*places.T, *others.T)[0]


def _amounts(plan: AdaptationPlan, places: Sequence[Places]) -> dict[str, int]:
    """How many objects of each set the tiles have room for.

    Raises
    ------
    UsageError
        For none.
    """

    def room(held_out: bool, preset: PresetName, own_share: float, uses: int) -> int:
        region = plan.region(held_out=held_out)
        counts = np.sum([np.bincount(within(one, region).kind, minlength=3) for one in places], axis=0)
        n_deflectors, n_galaxies = int(counts[DEFLECTOR]), int(counts[GALAXY])
        ground = real_ground(own_share, n_deflectors, n_galaxies)
        lenses = PRESETS[preset].lens_share
        painted = sum(share for name, share in ground.items() if name not in ("real_galaxy", "real_sky"))
        wanted = lenses + (1 - lenses) * painted, (1 - lenses) * ground.get("real_galaxy", 0.0)
        there = [n / share for n, share in zip((n_deflectors, n_galaxies), wanted, strict=True) if share]
        return int(_RESERVE * uses * min(there))

    n = plan.request.n_objects
    most = min(HELD_OUT_OBJECTS, max(1, n // 2))
    found = {
        "n_on_galaxies": min(round(GALAXY_SHARE * n), room(False, "train", OWN_SHARE, USES)),
        "n_on_sky": n - round(GALAXY_SHARE * n),
        "n_held_out_lenses": min(most, room(True, "survey", OWN_SHARE, USES)),
        "n_held_out_own": min(most, room(True, "challenge", 1.0, 1)),
    }
    if not all(found.values()):
        raise UsageError(
            f"the {len(plan.request.tiles)} tiles hold too few galaxies that could be lenses, to train on and to be judged by; "
            "give more tiles."
        )
    return found


@dataclass(frozen=True)
class _Listed:
    """What a tile holds: objects that a scan would score, and places to paint at."""

    ra: Float64
    dec: Float64
    places: Places

    @staticmethod
    def read(path: Path) -> _Listed:
        """What :func:`_list_tile` wrote."""
        with np.load(path, allow_pickle=False) as arrays:
            places = Places(**{name: arrays[name] for name in arrays.files if not name.startswith("own_")})
            return _Listed(arrays["own_ra"], arrays["own_dec"], places)


def _file(out: Path, what: str, number: int) -> Path:
    return out / TILES / f"{what}-{number:05d}.{'npz' if what == 'tile' else 'npy'}"


def _list_tile(request: AdaptationRequest, number: int, path: Path) -> None:
    tile = request.tiles[number]
    targets = _targets(tile, request.targets)
    try:
        _, places = survey_tile(tile, PRESETS["train"].options, 0, [request.seed, number], None)
    except TileError as error:
        raise InputMissingError(f"tile {tile.tile_id}: {error}") from None
    arrays = vars(places) | {"own_ra": targets.ra, "own_dec": targets.dec}
    with replacement(path) as partial, partial.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


def _targets(tile: Tile, config: TargetsConfig) -> Targets:
    try:
        with open_tile(tile, CutoutsConfig(require_all_bands=True)) as images:
            return list_targets(tile, images.vis, config).targets
    except TileError as error:
        raise InputMissingError(f"tile {tile.tile_id}: {error}") from None


def _score_tile(plan: AdaptationPlan, bundle_path: Path, number: int, path: Path) -> None:
    """Score the objects of a tile that lie in cells to train on: (n, 3) right ascension, declination, score."""
    tile, bundle = plan.request.tiles[number], bundles.load(bundle_path)
    session = open_session(bundle)
    rows = [np.empty((0, 3))]
    with open_tile(tile, CutoutsConfig(require_all_bands=True)) as images:
        targets = list_targets(tile, images.vis, plan.request.targets).targets
        wanted = np.flatnonzero(~plan.judges(targets.ra, targets.dec))
        for batch in cut(images, targets.take(wanted), _BATCH):
            logits = session.logits(*fill_bad_pixels(batch), batch.sky, batch.sigma)
            score = bundle.calibration.ranking_score(logits)
            rows.append(np.stack([batch.targets.ra, batch.targets.dec, score], axis=1))
    with replacement(path) as partial, partial.open("wb") as file:
        np.save(file, np.concatenate(rows), allow_pickle=False)


class DividedSetRecord(SealedRecord):
    """``dataset.json`` of the rows of a labelled set that lie on one side of an adaptation's fields."""

    format_version: Literal[1] = 1
    scanner_version: str = __version__
    part_of: str = Field(description="Fingerprint of the set.")
    source: str
    purpose: Literal["training", "evaluation"]
    n_objects: int = 0
    n_lenses: int = 0
    sha256: dict[str, str] = Field(default_factory=dict)


def divide_labels(plan: AdaptationPlan, labels: LabelledSet, train: Path, judge: Path) -> tuple[Path | None, Path | None]:
    """Divide a labelled set by the fields of the plan: rows in held-out cells judge, rows away from these are trained on.

    Rows without a position, and those that lie outside of the tiles, are trained on; their fields stay what they are.

    Parameters
    ----------
    plan, labels
        Of the adaptation; what is divided.
    train, judge
        Folders of the two parts; one that is there is not made again.

    Returns
    -------
    tuple of Path
        The parts; None: no row lies there.
    """
    ra, dec = labels.store.ra, labels.store.dec
    is_held_out, near = plan.judges(ra, dec), np.zeros(len(labels), dtype=bool)
    if is_held_out.any():
        known, places = np.isfinite(ra) & np.isfinite(dec), np.stack([ra, dec], axis=1)
        near[known] = _distance(places[known], places[is_held_out]) < 2.0 * MARGIN_ARCSEC
    rows = np.flatnonzero(~is_held_out & ~near), np.flatnonzero(is_held_out)
    return _part(labels, rows[0], train, "training"), _part(labels, rows[1], judge, "evaluation")


def _part(labels: LabelledSet, rows: Int64, out: Path, purpose: Literal["training", "evaluation"]) -> Path | None:
    if not len(rows):
        return None
    if (out / DESCRIPTION).exists():
        return out
    truth = pq.read_table(labels.path / TRUTH)
    record = DividedSetRecord(part_of=labels.fingerprint, source=str(labels.path), purpose=purpose)
    with writing_labelled_set(out, truth.schema, "labels") as writer:
        for start in range(0, len(rows), _BATCH):
            some = rows[start : start + _BATCH]
            writer.append(labels.store.read(some), truth.take(some).to_pylist())
        n_lenses = int(labels.truth.is_lens[rows].sum())
        writer.finish(record.model_copy(update={"n_objects": len(rows), "n_lenses": n_lenses}))
    return out
