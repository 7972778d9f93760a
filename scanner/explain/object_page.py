"""The page of one object: every method's picture of why the networks say what they say, and its nearest neighbours."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from scanner import __version__
from scanner.atomic_file import write_atomically, writing_to
from scanner.config import RunConfig, StorageConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import sigmoid
from scanner.ensemble.embedding_grid import EmbeddingGrid, limited
from scanner.ensemble.session import open_session
from scanner.errors import ContentError, UsageError
from scanner.evaluation.scores import cached_logits
from scanner.explain.ascent import deep_dream
from scanner.explain.display import enlarged, input_pictures, only, overlaid, png, put, replaced_group, signed_colours
from scanner.explain.maps import curves, guided_grad_cam, in_cells, occlusion, shown, strength
from scanner.explain.networks import CLASSES, disagreement, member_log_odds, network_input, restore, sky_level
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, CutoutBatch, Float32, Int64, MemberName
from scanner.report import colour
from scanner.report.colour import UInt8, vis_image
from scanner.report.contact_sheet import member_kind
from scanner.report.explanations import (
    ClassName,
    DreamRecord,
    Gain,
    MapRecord,
    Method,
    NeighbourRecord,
    PageRecord,
    PageRequest,
    VoteRecord,
)
from scanner.report.self_contained import asset, png_uri, template
from scanner.sky import tile_list
from scanner.sky.local_files import temporary_folder
from scanner.storage import open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.objects import FoundObject, candidate_cutouts, find_object

N_NEIGHBOURS = 8


@dataclass(frozen=True)
class Neighbours:
    """The ``K`` nearest of ``N`` objects, nearest first; (N, K, …).

    ``rows`` int64: row of the grid's training objects, or of the set. ``distance`` float32: in the map, in its units;
    ``logit_distance`` float32: Euclidean, in log-odds limited to ±20. ``positions`` (N, K, 2) and ``logits`` (N, K, 7) float32.
    ``lens_fraction`` float32: share of lenses among the training objects of the neighbour's cell.
    """

    rows: Int64
    distance: Float32
    logit_distance: Float32
    positions: Float32
    logits: Float32
    lens_fraction: Float32


def neighbours(logits: Float32, grid: EmbeddingGrid, k: int = N_NEIGHBOURS, *, among: Float32 | None = None) -> Neighbours:
    """Find the nearest training objects, or the nearest objects of a labelled set.

    A bundle keeps the log-odds and positions of its training objects, not their images or labels: the share of lenses around
    one is that of its cell. Objects of a labelled set, whose images are at hand, are placed on the map as new objects are. An
    object is placed at the position of a training object, so many lie at one distance in the map; among those the nearer in
    log-odds come first.

    Parameters
    ----------
    logits
        (N, 7) lens log-odds, finite.
    grid
        Of the bundle that gave them.
    k
        How many; fewer where there are no more.
    among
        (M, 7) log-odds of the set to search; None: the training objects that the grid keeps.

    Raises
    ------
    ValueError
        A log-odds is not finite.
    """
    places = grid.lookup(logits).positions
    if among is None:
        known, known_places = grid.logits, grid.positions
    else:
        known, known_places = np.asarray(among, dtype=np.float32), grid.lookup(among).positions
    asked, known_limited = limited(logits), limited(known)
    n, most = len(places), min(k, len(known))
    rows = np.empty((n, most), dtype=np.int64)
    distance, logit_distance = np.empty((n, most), np.float32), np.empty((n, most), np.float32)
    for number, (place, odds) in enumerate(zip(places, asked, strict=True)):
        in_map = np.linalg.norm(known_places - place, axis=1)
        in_logits = np.linalg.norm(known_limited - odds, axis=1)
        nearest = np.lexsort((in_logits, in_map))[:most]
        rows[number], distance[number], logit_distance[number] = nearest, in_map[nearest], in_logits[nearest]
    return Neighbours(
        rows=rows,
        distance=distance,
        logit_distance=logit_distance,
        positions=known_places[rows],
        logits=known[rows],
        lens_fraction=grid.value_at(known_places[rows].reshape(-1, 2)).value.reshape(n, most),
    )


#: Side of the pictures on the page, in pixels.
SIDE = 264
#: What is dreamt of, in the order of the pictures.
DREAMT: tuple[ClassName, ...] = ("lens", "non-lens")
#: Cells along a side of the maps that faithfulness compares, by side of the image: those of the occlusion maps.
FAITHFULNESS_CELLS = {200: 50, 66: 66}
#: ``arrays.zarr`` has a group a member: ``input`` (channels, side, side) as the network sees it, ``occlusion`` (m, m),
#: ``guided_grad_cam`` (channels, side, side), ``dream_lens`` and ``dream_non_lens`` (channels, side, side).
ARRAYS, RECORD, PAGE = "arrays.zarr", "explanation.json", "index.html"
Report = Callable[[str, int, int], None]


@dataclass(frozen=True)
class ExplainRequest:
    """What is to be explained: the run folder, the object, what is made of it and where it goes.

    ``bundle``: in the place of the run's own. ``dataset``: labelled set whose objects are searched for neighbours; ``cache``:
    where its log-odds are kept. ``storage``: how object stores are reached; None: as the run did.
    """

    run_folder: str
    candidate: str
    out: Path
    page: PageRequest
    bundle: str | None = None
    dataset: LabelledSet | None = None
    cache: Path | None = None
    storage: StorageConfig | None = None
    scratch: str | None = None


def explain_object(request: ExplainRequest, report: Report = lambda what, done, total: None) -> PageRecord:
    """Find an object of a run, cut it, ask every method, write the page.

    Returns
    -------
    PageRecord
        Written as ``explanation.json``, beside ``index.html``, which needs no network and no other file, PNG and
        ``arrays.zarr``. The run folder is only read.

    Raises
    ------
    InputMissingError
        Tile list, tile, files or bundle are not there any more.
    ContentError
        The bundle is another than the run's, and was not named; no cutout can be made.
    UsageError
        There is no such object, or the bundle has no map for ``neighbours``.
    OutputError
        The folder cannot be written.
    """
    folder = RunFolder(open_store(request.run_folder, request.storage or StorageConfig()))
    run = folder.record()
    storage = request.storage or run.config.storage
    bundle = bundles.load(request.bundle or run.config.scoring.bundle, storage)
    if request.bundle is None and bundle.fingerprint != run.bundle_fingerprint:
        raise ContentError(
            f"{bundle.location}: no longer the bundle of this run (its fingerprint was {run.bundle_fingerprint[:12]}, now it "
            f"is {bundle.fingerprint[:12]}); name the right one, or any other, with --bundle."
        )
    if "neighbours" in request.page.methods and bundle.grid is None:
        raise UsageError(f"{bundle.location}: has no t-SNE map to look for neighbours in; leave 'neighbours' out of --method.")
    with temporary_folder(request.scratch) as scratch:
        found = find_object(folder, request.candidate, scratch)
    tile = tile_list.read(run.tile_list, storage).tile(found.commit.tile_id)
    cutout = candidate_cutouts(found.row, folder, {tile.tile_id: tile}, _here(run.config, storage, request.scratch))
    if cutout is None or not len(cutout):
        raise ContentError(f"{folder.location}: no cutout could be made of {found.name}; run its tile again.")
    return _explained(request, bundle, found, cutout, folder.location, report)


def _here(config: RunConfig, storage: StorageConfig, scratch: str | None) -> RunConfig:
    """The run's settings, with stores and scratch folder as they are reached from here."""
    return config.model_copy(update={"storage": storage, "engine": config.engine.model_copy(update={"scratch": scratch})})


def _explained(
    request: ExplainRequest, bundle: Bundle, found: FoundObject, cutout: CutoutBatch, location: str, report: Report
) -> PageRecord:
    networks = restore(bundle)
    logits = member_log_odds(bundle, networks, cutout)
    votes = disagreement(logits)
    made = {
        member: _pictures(
            Subject(member, networks[member], network_input(bundle, member, cutout), cutout, request.page, report)
        )
        for member in request.page.members
    }
    nearest, pictures = _neighbours(request, bundle, logits) if "neighbours" in request.page.methods else ((), ())
    record = PageRecord(
        scanner_version=__version__,
        name=found.name,
        run_folder=location,
        tile_id=found.commit.tile_id,
        target_id=int(found.row["target_id"][0].as_py()),
        bundle=f"{bundle.manifest.name} {bundle.manifest.version}",
        bundle_fingerprint=bundle.fingerprint,
        preprocessing=bundle.manifest.preprocessing,
        request=request.page,
        votes=tuple(
            VoteRecord(member=member, probability=float(value))
            for member, value in zip(MEMBERS, votes.probabilities[0], strict=True)
        ),
        n_votes=int(votes.votes[0]),
        spread=float(votes.spread[0]),
        shared_bits=float(votes.shared_bits[0]),
        disagreement_bits=float(votes.disagreement_bits[0]),
        maps=tuple(one.map for of_member in made.values() for one in of_member if one.map is not None),
        dreams=tuple(dream for of_member in made.values() for one in of_member for dream in one.dreams),
        neighbours=nearest,
        dataset=None if request.dataset is None else request.dataset.path.name,
    )
    write_page(request.out, record, cutout, made, pictures)
    return record


@dataclass(frozen=True)
class Subject:
    """One object as one member sees it, which a method explains.

    ``images`` (1, channels, side, side) float32; ``cutout``: a batch of one. ``report`` is called with what is being made, and
    how many steps of how many are done.
    """

    member: MemberName
    network: nn.Sequential
    images: torch.Tensor
    cutout: CutoutBatch
    request: PageRequest
    report: Report


@dataclass(frozen=True)
class Panel:
    """A picture (SIDE, SIDE, 3) uint8, y upwards; ``name`` of its file, ``caption`` under it."""

    name: str
    caption: str
    image: UInt8


@dataclass(frozen=True)
class Made:
    """What one method made of one member: ``arrays`` by the name that they have in ``arrays.zarr``."""

    panels: tuple[Panel, ...]
    arrays: dict[str, Float32]
    map: MapRecord | None = None
    dreams: tuple[DreamRecord, ...] = ()


def _pictures(subject: Subject) -> tuple[Made, ...]:
    """What a member sees, then what every method says of it."""
    made = [input_of(subject)]
    for method in subject.request.methods:
        if method in PICTURES:
            subject.report(f"{subject.member}, {method}", 0, 1)
            made.append(PICTURES[method](subject))
    return tuple(made)


def input_of(subject: Subject) -> Made:
    """What a member sees."""
    member, image = subject.member, subject.images[0].numpy()
    panels = tuple(
        Panel(f"{member}-{what}.png", f"{what}, as {member} sees it", enlarged(picture, SIDE))
        for what, picture in input_pictures(member, image).items()
    )
    return Made(panels, {f"{member}/input": image})


def occlusion_of(subject: Subject) -> Made:
    """Occlusion, alone and on VIS."""
    member, cutout = subject.member, subject.cutout
    found = occlusion(subject.network, subject.images, fill=sky_level(subject.images) if subject.request.fill == "sky" else 0.0)
    vis = vis_image(cutout.vis[0], cutout.sky[0], cutout.sigma[0])
    panels = (
        Panel(
            f"{member}-occlusion.png",
            f"occlusion, {found.min():+.2f} to {found.max():+.2f} in log-odds",
            enlarged(signed_colours(found[0]), SIDE),
        ),
        Panel(f"{member}-occlusion-on-vis.png", "the same on VIS", enlarged(overlaid(vis, found[0]), SIDE)),
    )
    return Made(panels, {f"{member}/occlusion": found[0]}, _map_record("occlusion", subject, found, -found))


def guided_grad_cam_of(subject: Subject) -> Made:
    """Guided Grad-CAM: what the network sees, where it speaks for a lens (Fig. 17)."""
    member, images = subject.member, subject.images
    attribution = guided_grad_cam(subject.network, images)
    mask, strong = shown(attribution)[0], strength(attribution)
    panels = tuple(
        Panel(
            f"{member}-guided-grad-cam-{what}.png",
            f"guided Grad-CAM, {what} ({mask.mean():.1%} of the pixels)",
            enlarged(only(picture, mask), SIDE),
        )
        for what, picture in input_pictures(member, images[0].numpy()).items()
    )
    importance = in_cells(strong, FAITHFULNESS_CELLS[images.shape[-1]])
    record = _map_record("guided-grad-cam", subject, attribution, importance)
    return Made(panels, {f"{member}/guided_grad_cam": attribution[0]}, record)


def dreams_of(subject: Subject) -> Made:
    """Deep Dream towards either class: what the object becomes."""
    member = subject.member
    panels: list[Panel] = []
    arrays: dict[str, Float32] = {}
    records = []
    for name in DREAMT:
        dreamt = deep_dream(
            subject.network,
            subject.images,
            CLASSES[name],
            learning_rate=subject.request.dream_learning_rate,
            steps=subject.request.dream_steps,
            report=partial(subject.report, f"{member}, towards {name}"),
        )
        before, reached = float(dreamt.reached[0, 0]), float(dreamt.reached[-1, 0])
        for what, picture in input_pictures(member, dreamt.images[0]).items():
            caption = f"{what} dreamt towards {name}: logit {before:.1f} → {reached:.1f}"
            panels.append(Panel(f"{member}-dream-{name}-{what}.png", caption, enlarged(picture, SIDE)))
        arrays[f"{member}/dream_{name.replace('-', '_')}"] = dreamt.images[0]
        records.append(DreamRecord(member=member, name=name, before=before, reached=reached))
    return Made(tuple(panels), arrays, dreams=tuple(records))


#: What draws the pictures of a method, of every method that looks at one network.
PICTURES: Mapping[Method, Callable[[Subject], Made]] = {
    "occlusion": occlusion_of,
    "guided-grad-cam": guided_grad_cam_of,
    "deep-dream": dreams_of,
}


def _map_record(method: Method, subject: Subject, map_: Float32, importance: Float32) -> MapRecord:
    """What is said of a map; ``importance`` (1, m, m): what of it speaks for a lens."""
    deletion, insertion = _gains(subject, importance)
    return MapRecord(
        method=method,
        member=subject.member,
        lowest=float(map_.min()),
        highest=float(map_.max()),
        deletion_gain=deletion,
        insertion_gain=insertion,
    )


def _gains(subject: Subject, importance: Float32) -> tuple[Gain | None, Gain | None]:
    """By how much the map's order beats random ones, for one object; the interval holds 95% of the random orders."""
    n, images = subject.request.random_orders, subject.images
    if not n:
        return None, None
    orders = np.random.default_rng(subject.request.seed).random((n, *importance.shape[1:]))
    own = curves(subject.network, images, importance)
    chance = curves(subject.network, images.expand(n, *images.shape[1:]), orders)
    return (
        _mean_gain(chance.deletion_area - own.deletion_area),
        _mean_gain(own.insertion_area - chance.insertion_area),
    )


def _mean_gain(gains: NDArray[np.float64]) -> Gain:
    low, high = np.quantile(gains, (0.025, 0.975))
    return Gain(value=float(gains.mean()), low=float(low), high=float(high))


def _neighbours(
    request: ExplainRequest, bundle: Bundle, logits: Float32
) -> tuple[tuple[NeighbourRecord, ...], tuple[Panel, ...]]:
    """The nearest training objects of the bundle; or of a labelled set, with their pictures."""
    grid, dataset = bundle.grid, request.dataset
    if grid is None:
        return (), ()
    among = None
    if dataset is not None:
        among = cached_logits(bundle, dataset, lambda: open_session(bundle), request.cache)[:, : len(MEMBERS)]
    near = neighbours(logits, grid, request.page.neighbours, among=among)
    records, pictures = [], []
    for number, row in enumerate(near.rows[0].tolist()):
        label: dict[str, int | bool | str] = {}
        if dataset is not None:
            truth = dataset.truth
            label = {
                "target_id": int(truth.target_id[row]),
                "is_lens": bool(truth.is_lens[row]),
                "class_name": str(truth.class_name[row]),
            }
            (batch, _, _) = next(iter(dataset.batches(np.array([row], dtype=np.int64), 1)))
            caption = f"{'lens' if truth.is_lens[row] else 'no lens'}: {truth.class_name[row]}"
            picture = enlarged(vis_image(batch.vis[0], batch.sky[0], batch.sigma[0]), SIDE)
            pictures.append(Panel(f"neighbour-{number + 1}.png", caption, picture))
        records.append(
            NeighbourRecord(
                distance=float(near.distance[0, number]),
                logit_distance=float(near.logit_distance[0, number]),
                lens_fraction=float(near.lens_fraction[0, number]),
                probabilities=tuple(sigmoid(near.logits[0, number].astype(np.float64)).tolist()),
                **label,
            )
        )
    return tuple(records), tuple(pictures)


def write_page(
    out: Path,
    record: PageRecord,
    cutout: CutoutBatch,
    made: Mapping[MemberName, Sequence[Made]],
    neighbours: Sequence[Panel],
) -> None:
    """Write everything.

    Raises
    ------
    OutputError
        The folder cannot be written.
    """
    whole = _whole(cutout)
    panels = {member: [panel for one in of_member for panel in one.panels] for member, of_member in made.items()}
    with writing_to(out):
        out.mkdir(parents=True, exist_ok=True)
        _write_arrays(out / ARRAYS, made)
        encoded = {panel.name: png(panel.image) for group in (whole, *panels.values(), neighbours) for panel in group}
        for name, content in encoded.items():
            write_atomically(out / name, content)
        write_atomically(out / RECORD, record.to_bytes())
        write_atomically(out / PAGE, _page(record, whole, panels, neighbours, encoded).encode())


def _whole(cutout: CutoutBatch) -> tuple[Panel, ...]:
    sky, sigma = cutout.sky[0], cutout.sigma[0]
    pictures = {
        "VIS": colour.vis_image(cutout.vis[0], sky, sigma),
        "VIS + J, H": colour.colour_image(cutout.vis[0], cutout.nisp[0], sky, sigma),
        "Y, J, H": colour.nisp_image(cutout.nisp[0], sky, sigma),
    }
    names = ("vis.png", "colour.png", "nisp.png")
    return tuple(Panel(name, what, enlarged(image, SIDE)) for name, (what, image) in zip(names, pictures.items(), strict=True))


def _page(
    record: PageRecord,
    whole: Sequence[Panel],
    panels: Mapping[MemberName, Sequence[Panel]],
    neighbours: Sequence[Panel],
    encoded: Mapping[str, bytes],
) -> str:
    uris = {name: png_uri(content) for name, content in encoded.items()}
    return template("explanation").render(
        record=record,
        whole=whole,
        panels=panels,
        neighbours=neighbours,
        uris=uris,
        kinds={vote.member: member_kind(vote.member) for vote in record.votes},
        style=asset("evaluation.css"),
    )


def _write_arrays(path: Path, made: Mapping[MemberName, Sequence[Made]]) -> None:
    with replaced_group(path) as group:
        for of_member in made.values():
            for one in of_member:
                for name, values in one.arrays.items():
                    put(group, name, values)
