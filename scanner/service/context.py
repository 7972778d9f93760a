"""What the routes of a service share, and how they do work that blocks.

In: made once by :mod:`scanner.service.app`. Out: handed to every ``router(context)``. Refused: what
:class:`~scanner.service.work.Work` refuses.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request

from scanner.service.collections import Collections
from scanner.service.cutouts.source import Cutouts
from scanner.service.grading.blind import Blindness
from scanner.service.grading.store import GradeStore
from scanner.service.instruments import ServiceInstruments
from scanner.service.security.tokens import TokenBook
from scanner.service.settings import ServiceConfig
from scanner.service.work import Work

Result = TypeVar("Result")


@dataclass(frozen=True)
class Context:
    """What a service is made of."""

    config: ServiceConfig
    collections: Collections
    tokens: TokenBook
    work: Work
    metrics: ServiceInstruments
    grades: GradeStore
    blindness: Blindness
    cutouts: Cutouts

    def base_url(self, request: Request) -> str:
        """The service's root as clients reach it, without a slash at its end."""
        return (self.config.http.base_url or str(request.base_url)).rstrip("/")

    async def run(self, function: Callable[..., Result], *args: Any, seconds: float | None = None) -> Result:
        """Call a function that blocks; see :meth:`scanner.service.work.Work.run`."""
        return await self.work.run(function, *args, seconds=seconds)

    async def stream(
        self, function: Callable[..., Iterator[bytes]], *args: Any, seconds: float | None = None
    ) -> AsyncIterator[bytes]:
        """Call a function that makes an answer piece by piece; see :meth:`scanner.service.work.Work.stream`."""
        return await self.work.stream(function, *args, seconds=seconds)
