"""Damage done to files: bits that flip at places that a seed decides, and records that are changed and sealed again."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from scanner.records import sealed, unsealed


def flipped(path: Path, seed: int, n: int) -> Iterator[int]:
    """Flip one bit after the other, each alone, at places drawn by a seed; yields the byte's place, and puts the file back."""
    whole = path.read_bytes()
    random = np.random.default_rng([seed, *path.name.encode()])
    for place, bit in zip(random.integers(0, len(whole), n).tolist(), random.integers(0, 8, n).tolist(), strict=True):
        content = bytearray(whole)
        content[place] ^= 1 << bit
        path.write_bytes(content)
        yield place
    path.write_bytes(whole)


def resealed(path: Path, **changes: object) -> None:
    """Change keys of a record, and give it the checksum that it should have then."""
    record = json.loads(unsealed(path.read_bytes())) | changes
    record.pop("checksum", None)
    path.write_bytes(sealed((json.dumps(record, indent=2, ensure_ascii=False) + "\n").encode()))
