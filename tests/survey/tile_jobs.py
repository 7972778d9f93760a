"""Jobs of single tiles, and what they leave behind."""

import hashlib

from scans import quick_bundle

from scanner.config import StorageConfig, load
from scanner.ensemble import bundles
from scanner.sky import tile_list
from scanner.storage import join, open_store
from scanner.survey.folder.ledger import RunFolder
from scanner.survey.messages import TileJob

#: Half of the objects are decided, so that each rule keeps another part of them; three batches.
FLAGS = {"scoring.beta": 2.0, "targets.magnitude_limit": 21.5, "cutouts.batch_size": 4, "engine.parallel_scores": 1}
#: Fields of a commit record that tell how the work went, not what came of it.
TIMES = ("seconds", "core_seconds", "gpu_seconds", "place")


def job_of(sky, out, number=0, *, storage=None, augmented=False, **flags):
    """A job of one tile of the list; keyword ``cutouts__keep`` stands for the flag ``cutouts.keep``.

    ``augmented``: with the bundle that ships, which scores the best objects eight ways.
    """
    given = FLAGS | {name.replace("__", "."): value for name, value in flags.items()}
    config = load(None, given, {})
    if storage is not None:
        config = config.model_copy(update={"storage": storage})
    tile = list(tile_list.read(join(str(sky), "tile-list.txt"), storage or StorageConfig()).tiles.values())[number]
    bundle = bundles.load(None if augmented else quick_bundle())
    return TileJob(
        tile=tile,
        run_folder=str(out),
        config=config,
        provider="cpu",
        bundle=str(bundle.path),
        config_fingerprint="settings",
        bundle_fingerprint=bundle.fingerprint,
    )


def run_folder(job):
    return RunFolder(open_store(job.run_folder, job.config.storage))


def left_by(job):
    """What a tile left in its run folder, wherever that is: the commit without its times, and the bytes of each file."""
    folder = run_folder(job)
    commit = folder.commit_of(job.tile.tile_id)
    below = "/".join(part for part in (folder.tile(job.tile.tile_id), commit.place) if part)
    content = {name: folder.store.read(f"{below}/{name}") for name in commit.sha256}
    assert {name: hashlib.sha256(value).hexdigest() for name, value in content.items()} == commit.sha256
    return {name: value for name, value in commit.model_dump().items() if name not in TIMES}, content
