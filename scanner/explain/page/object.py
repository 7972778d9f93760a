"""Explain one object of a run: find it, cut it, ask every method, write the page.

In: a run folder, an object (see :mod:`scanner.survey.find_object`), what is asked for. Out: a folder with
``index.html``, which needs no network and no other file, PNG, ``arrays.zarr`` and ``explanation.json``. Refused: what is not
there any more (tile list, tile, files, bundle: :class:`InputMissingError`), another bundle than the run's unless it is named,
a bundle without a grid for ``neighbours`` (:class:`UsageError`), a folder that cannot be written (:class:`OutputError`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn

from scanner import __version__
from scanner.config import RunConfig, StorageConfig
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.calibration import sigmoid
from scanner.ensemble.session import open_session
from scanner.errors import ContentError, InputMissingError, UsageError
from scanner.evaluation.scores import cached_logits
from scanner.explain.disagreement import disagreement
from scanner.explain.display import enlarged
from scanner.explain.neighbours import neighbours
from scanner.explain.networks import member_log_odds, network_input, restore
from scanner.explain.page.methods import SIDE, Made, Panel, dreams_of, guided_grad_cam_of, occlusion_of, seen
from scanner.explain.page.write import write_page
from scanner.labelled_set import LabelledSet
from scanner.records import MEMBERS, CutoutBatch, Float32, MemberName
from scanner.report.colour import vis_image
from scanner.report.explanations import NeighbourRecord, PageRecord, PageRequest, VoteRecord
from scanner.sky import tile_list
from scanner.sky.local_files import temporary_folder
from scanner.storage import open_store
from scanner.survey.candidate_cutouts import candidate_cutouts
from scanner.survey.find_object import FoundObject, find_object
from scanner.survey.folder.ledger import RunFolder

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
    """Explain one object.

    Raises
    ------
    ScannerError
        See the module.
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
    tiles = tuple(tile for tile in tile_list.read(run.tile_list, storage).tiles if tile.tile_id == found.commit.tile_id)
    if not tiles:
        raise InputMissingError(f"{run.tile_list}: no longer lists tile {found.commit.tile_id}; put its line back.")
    cutout = candidate_cutouts(found.row, folder, tiles, _here(run.config, storage, request.scratch))
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
    inputs = {member: network_input(bundle, member, cutout) for member in request.page.members}
    logits = member_log_odds(bundle, networks, cutout)
    votes = disagreement(logits)
    made = {
        member: _methods(member, networks[member], inputs[member], cutout, request.page, report)
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


def _methods(
    member: MemberName, network: nn.Sequential, images: torch.Tensor, cutout: CutoutBatch, request: PageRequest, report: Report
) -> tuple[Made, ...]:
    makers: Mapping[str, Callable[[], Made]] = {
        "occlusion": lambda: occlusion_of(member, network, images, cutout, request),
        "guided-grad-cam": lambda: guided_grad_cam_of(member, network, images, request),
        "deep-dream": lambda: dreams_of(member, network, images, request, report),
    }
    made = [Made(seen(member, images[0].numpy()), {f"{member}/input": images[0].numpy()})]
    for method in request.methods:
        if method in makers:
            report(f"{member}, {method}", 0, 1)
            made.append(makers[method]())
    return tuple(made)


def _neighbours(
    request: ExplainRequest, bundle: Bundle, logits: Float32
) -> tuple[tuple[NeighbourRecord, ...], tuple[Panel, ...]]:
    """The nearest training objects of the bundle; or of a labelled set, with their pictures."""
    grid, dataset = bundle.grid, request.dataset
    if grid is None:
        return (), ()
    among = None
    if dataset is not None:
        among = cached_logits(bundle, dataset, lambda: open_session(bundle), request.cache)
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
