"""All that one service serves, in the order in which its folders were named, the first by default.

In: locations. Out: :class:`Collections`. A folder that has changed (a survey with a new version, a run that was merged again)
is opened anew in the background, and takes the place of the old state in one step: an answer is of one state. Refused: folders
that cannot be opened when the service starts, unless it waits for them; later ones stay as they were, and the log says why.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence

import pyarrow as pa

from scanner.errors import ScannerError
from scanner.service.collections.collection import Collection, open_collection, state_of
from scanner.service.collections.identifiers import CandidateId
from scanner.service.errors import BusyError, NotFoundError
from scanner.service.instruments import ServiceInstruments
from scanner.service.settings import ServiceConfig
from scanner.survey.published import open_published

#: How often the folders are looked at, in seconds.
RENEWAL_S = 30.0

logger = logging.getLogger(__name__)


class UnknownCollectionError(NotFoundError):
    """There is no collection of this name."""


class UnknownCandidateError(NotFoundError):
    """There is no object of this name."""


class Collections:
    """The open collections; :meth:`open_all` or :meth:`start` opens them."""

    def __init__(self, locations: Sequence[str], config: ServiceConfig, instruments: ServiceInstruments) -> None:
        self._config, self._instruments = config, instruments
        self._named_as = tuple(locations)
        self._waits = config.files.wait
        # Folders that make no sense are refused at once; large ones take a while to open.
        self._locations = {} if self._waits else self._by_slug()
        self._open: dict[str, Collection] = {}
        self._opened = threading.Event()
        self._closing = threading.Event()
        self._thread: threading.Thread | None = None
        #: What kept a folder from being opened, for whoever waits for it.
        self.error: Exception | None = None

    def __iter__(self) -> Iterator[Collection]:
        return iter([self.get(slug) for slug in self._known()])

    def __len__(self) -> int:
        return len(self._named_as)

    @property
    def is_ready(self) -> bool:
        """Whether all are open."""
        return self._opened.is_set() and self.error is None

    @property
    def default(self) -> Collection:
        """The first one."""
        return self.get(next(iter(self._known())))

    def get(self, slug: str) -> Collection:
        """One collection.

        Raises
        ------
        UnknownCollectionError
            There is none of this name.
        BusyError
            It is not open yet.
        """
        if slug not in self._known():
            raise UnknownCollectionError("There is no collection of this name; /api/v1/collections lists them.")
        if slug not in self._open:
            raise _not_yet()
        return self._open[slug]

    def find(self, candidate_id: str) -> tuple[Collection, pa.Table]:
        """The first collection that has an object, and its row; blocks.

        Parameters
        ----------
        candidate_id
            ``run/tile_id/target_id``.

        Raises
        ------
        UnknownCandidateError
            None has it.
        """
        wanted = CandidateId.parse(candidate_id)
        for collection in self if wanted is not None else ():
            row = collection.row(wanted) if wanted is not None else None
            if row is not None:
                return collection, row
        raise UnknownCandidateError("There is no object of this id (run/tile_id/target_id).")

    def start(self) -> None:
        """Open all in the background, and look after them from then on; a second call does nothing."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._look_after, name="collections", daemon=True)
            self._thread.start()

    def wait(self, seconds: float) -> bool:
        """Wait until all are open, or one cannot be; False where that takes longer."""
        return self._opened.wait(seconds)

    def close(self) -> None:
        """Look after them no more."""
        self._closing.set()

    def open_all(self) -> None:
        """Open all; where the service waits for its folders, this may be tried again.

        Raises
        ------
        ScannerError
            A folder cannot be opened.
        """
        try:
            self._locations = self._locations or self._by_slug()
            for slug, location in self._locations.items():
                if slug not in self._open:
                    self._put(open_collection(location, self._config, slug))
        except Exception as error:
            if not self._may_pass(error):
                self.error = error
                self._opened.set()
            raise
        self._opened.set()
        self._instruments.ready.set(1)

    def renew(self) -> None:
        """Open those anew whose folders have changed."""
        for slug, location in self._locations.items():
            try:
                if state_of(open_published(location, storage=self._config.storage)) != self._open[slug].state:
                    self._put(open_collection(location, self._config, slug))
                    self._instruments.renewals.inc()
                    logger.info("%s: opened again, as it has changed", slug)
            except (ScannerError, OSError) as error:
                logger.warning("%s: stays as it was: %s", slug, error)
            except Exception:
                # Whatever it is, the others are to be looked at, and this one again.
                logger.exception("%s: stays as it was", slug)

    def _put(self, collection: Collection) -> None:
        self._open[collection.slug] = collection
        self._instruments.objects.labels(collection.slug).set(collection.n_objects)
        self._instruments.candidates.labels(collection.slug).set(collection.n_candidates)

    def _by_slug(self) -> dict[str, str]:
        slugs = _distinct([open_published(location, storage=self._config.storage).slug for location in self._named_as])
        return dict(zip(slugs, self._named_as, strict=True))

    def _known(self) -> dict[str, str]:
        """The folders by name; what a folder is called, it says itself."""
        if not self._locations:
            raise _not_yet()
        return self._locations

    def _may_pass(self, error: Exception) -> bool:
        """Whether the folders may be what they should later: they are not there yet, or their store does not answer."""
        return self._waits and isinstance(error, ScannerError | OSError)

    def _look_after(self) -> None:
        while not self.is_ready:
            try:
                self.open_all()
            except Exception as error:
                if not self._may_pass(error):
                    logger.error("cannot serve: %s", error)
                    return
                logger.warning("not served yet: %s", error)
                if self._closing.wait(RENEWAL_S):
                    return
        while not self._closing.wait(RENEWAL_S):
            self.renew()


def _not_yet() -> BusyError:
    return BusyError("The catalogue is being opened; try again in a moment.", {"Retry-After": "2"})


def _distinct(slugs: Sequence[str]) -> list[str]:
    """Names, those that came before with a number added."""
    distinct: list[str] = []
    for slug in slugs:
        number = 1
        name = slug
        while name in distinct:
            number += 1
            name = f"{slug}-{number}"
        distinct.append(name)
    return distinct
