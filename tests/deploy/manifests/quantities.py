"""Kubernetes' quantities as numbers: ``500m`` → 0.5, ``3Gi`` → 3221225472."""

import re

_SUFFIXES = {"": 1, "m": 1e-3, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15} | {
    f"{letter}i": 2.0 ** (10 * power) for power, letter in enumerate("KMGTP", 1)
}


def number(quantity):
    """The number; a text that is no quantity raises ``ValueError``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?(?:[eE]\d+)?)([a-zA-Z]*)", str(quantity))
    if found is None or found[2] not in _SUFFIXES:
        raise ValueError(f"{quantity!r} is no quantity")
    return float(found[1]) * _SUFFIXES[found[2]]
