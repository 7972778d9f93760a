"""A run or a survey, opened to be looked at."""

from __future__ import annotations

from scanner.config import StorageConfig
from scanner.storage.open import open_store
from scanner.survey import status as statuses
from scanner.survey.status import RunStatus


class Run:
    """A run folder.

    Attributes
    ----------
    location : str
        Its path or URL.
    """

    def __init__(self, location: str, storage: StorageConfig) -> None:
        self.location, self.storage = location, storage

    @property
    def status(self) -> RunStatus:
        """How far the run is; read anew each time."""
        return statuses.read(open_store(self.location, self.storage))
