"""The runs and surveys that a service has open."""

from scanner.service.collections.collection import CANDIDATES, Collection
from scanner.service.collections.identifiers import CandidateId
from scanner.service.collections.registry import Collections, UnknownCandidateError, UnknownCollectionError

__all__ = ["CANDIDATES", "CandidateId", "Collection", "Collections", "UnknownCandidateError", "UnknownCollectionError"]
