"""A run goes on with the bundle that it began with, also where the store of bundles names another by now.

In: the settings of a run, its folder. Out: the settings with a bundle in the place of ``STORE/current``: the one that the
folder's run began with where it came from the same store, else the one that is current now. Settings that name a bundle
outright are left alone. Refused: what :mod:`scanner.ensemble.bundles` and the folder refuse.
"""

from __future__ import annotations

from scanner.config import RunConfig
from scanner.ensemble.bundles import followed, is_pointer
from scanner.storage import open_store
from scanner.storage.location import join, split
from scanner.survey.folder.ledger import RUN_RECORD, RunFolder


def with_own_bundle(config: RunConfig, run_folder: str, *, restart: bool = False) -> RunConfig:
    """Settings that name one bundle.

    Parameters
    ----------
    config
        As they were given.
    run_folder
        Location of the run's folder, which need not be there.
    restart
        Whether what the folder holds does not count.
    """
    given = config.scoring.bundle
    if given is None or not is_pointer(given):
        return config
    bundle = None if restart else _begun_with(run_folder, split(given)[0], config)
    scoring = config.scoring.model_copy(update={"bundle": bundle or followed(given, config.storage)})
    return config.model_copy(update={"scoring": scoring})


def _begun_with(run_folder: str, bundles: str, config: RunConfig) -> str | None:
    """Location of the bundle of the run in a folder, where it came from this store of bundles."""
    folder = RunFolder(open_store(run_folder, config.storage))
    if not folder.store.exists(RUN_RECORD):
        return None
    record = folder.record()
    location = join(bundles, record.bundle_fingerprint)
    return location if record.config.scoring.bundle == location else None
