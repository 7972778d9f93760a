"""What a result depends on: settings, input files and all files of a tile as short hashes; the machine, and versions.

A committed tile is skipped only if its fingerprints of inputs, settings and bundle agree: equal ones give equal bytes.
"""

from __future__ import annotations

import hashlib
import importlib
import platform
import sys
from collections.abc import Mapping
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import scanner
from scanner.config import RunConfig, StorageConfig
from scanner.ensemble.session import BATCH
from scanner.errors import ForbiddenError, TileError, UsageError
from scanner.records import ImageRef, Provider, Record, Tile
from scanner.sky.local_files import local_path, regular_file
from scanner.storage import is_remote, open_store, split

SAMPLED_BLOCKS = 16
BLOCK_BYTES = 65_536
_HEX_DIGITS = 32


def of_config(config: RunConfig, provider: str) -> str:
    """Hash of the settings that change a tile's scores: all but the engine, the stores, merging, and what only decides.

    A session's threads count: they change the order of its sums, and so the last digits of the scores.

    Parameters
    ----------
    config
        The run's configuration.
    provider
        The inference provider that really runs, since ``auto`` may mean another one elsewhere.
    """
    relevant = config.model_dump_json(include={"targets": True, "cutouts": True, "scoring": {"threads", "screen"}})
    return hashlib.sha256(f"{provider}\n{relevant}".encode()).hexdigest()[:_HEX_DIGITS]


def of_files(tile: Tile, storage: StorageConfig) -> dict[str, str]:
    """Hash of each of a tile's input files, by role (``VIS.image``, ``Y.flag``, ``catalogue``).

    Of a local file its size and 16 blocks of 64 KiB spread evenly over it, ends included, are hashed: a mosaic holds
    gigabytes, so not every byte is read, and a new version of a product changes its header, which is sampled. Of a file on an
    object store, its size and version as the store tells them.

    Parameters
    ----------
    tile
        The tile as the tile list names it.
    storage
        How object stores are reached.

    Raises
    ------
    TileError
        A file is missing or unreadable.
    UnavailableError
        A store does not answer.
    """
    return {role: _of_file(reference, storage) for role, reference in tile.files.items()}


def combined(files: Mapping[str, str]) -> str:
    """One hash of those of all files."""
    text = "".join(f"{role}\n{digest}\n" for role, digest in sorted(files.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:_HEX_DIGITS]


def of_tile(tile: Tile, storage: StorageConfig) -> str:
    """Hash of a tile's inputs; see :func:`of_files`."""
    return combined(of_files(tile, storage))


def bytes_of_tile(tile: Tile) -> int:
    """Bytes on disk of a tile's distinct input files; missing ones count as nothing."""
    paths = {local_path(reference.path) for reference in tile.files.values()}
    return sum(path.stat().st_size for path in paths if path.is_file())


def _of_file(reference: ImageRef, storage: StorageConfig) -> str:
    digest = hashlib.sha256(f"{reference.extension}\n".encode())
    if is_remote(reference.path):
        folder, name = split(reference.path)
        try:
            entry = open_store(folder, storage).entry(name)
        except (ForbiddenError, UsageError) as error:
            raise TileError(str(error)) from None
        if entry is None:
            raise TileError(f"{reference.path}: there is no such file; check the path in the tile list.")
        digest.update(f"{entry.size}\n{entry.version}\n".encode())
    else:
        _sample(local_path(reference.path), digest)
    return digest.hexdigest()[:_HEX_DIGITS]


def _sample(path: Path, digest: hashlib._Hash) -> None:
    try:
        with regular_file(path, str(path)).open("rb") as file:
            size = file.seek(0, 2)
            digest.update(size.to_bytes(8, "little"))
            last = max(size - BLOCK_BYTES, 0)
            starts = {round(last * step / (SAMPLED_BLOCKS - 1)) for step in range(SAMPLED_BLOCKS)}
            for start in sorted(starts):
                file.seek(start)
                digest.update(file.read(BLOCK_BYTES))
    except OSError as error:
        raise TileError(f"{path}: cannot be read ({error.strerror}); check the path in the tile list.") from None


#: Instructions that NumPy, OpenBLAS and ONNX Runtime dispatch on, as /proc/cpuinfo names them on x86 and on Arm.
INSTRUCTIONS = (
    *("sse4_2", "avx", "f16c", "fma", "avx2", "avx512f", "avx512dq", "avx512bw", "avx512vl", "avx512_vnni"),
    *("avx512_bf16", "avx512_fp16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16"),
    *("asimd", "asimddp", "asimdhp", "i8mm", "bf16", "sve", "sve2"),
)
#: Libraries whose arithmetic is in a score. ONNX Runtime comes in wheels of three names.
LIBRARIES = ("onnxruntime", "onnxruntime-openvino", "onnxruntime-gpu", "numpy", "scipy", "astropy", "sep")
CPU_INFO = Path("/proc/cpuinfo")
NVIDIA = Path("/proc/driver/nvidia")


@lru_cache
def machine_fingerprint(provider: Provider) -> str:
    """Say what computes here.

    Parameters
    ----------
    provider
        What the networks run on.

    Returns
    -------
    str
        For people and for comparison, ``; `` between its parts.
    """
    facts = [platform.machine(), _processor(), f"provider {provider}"]
    if BATCH[provider] > 1:
        facts.append(_gpu())
    for library in LIBRARIES:
        try:
            facts.append(f"{library} {version(library)}")
        except PackageNotFoundError:
            continue
    return "; ".join(fact for fact in facts if fact)


def _processor() -> str:
    info = _fields(CPU_INFO)
    flags = set((info.get("flags") or info.get("Features") or "").split())
    model = info.get("model name") or platform.processor()
    family = [f"{name} {info[name]}" for name in ("cpu family", "model", "stepping") if name in info]
    return " ".join([model, *family, *(name for name in INSTRUCTIONS if name in flags)])


def _gpu() -> str:
    models = sorted({_fields(card).get("Model", "") for card in NVIDIA.glob("gpus/*/information")})
    driver = _fields(NVIDIA / "version").get("NVRM version", "")
    return " ".join([*models, driver]).strip()


def _fields(path: Path) -> dict[str, str]:
    """``name: value`` lines of a file, the first of each name; nothing where there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    fields: dict[str, str] = {}
    for line in lines:
        name, separator, value = line.partition(":")
        if separator:
            fields.setdefault(name.strip(), value.strip())
    return fields


#: Libraries whose version can change a byte of the results: arithmetic, networks, files.
SHARED_LIBRARIES = ("numpy", "onnxruntime", "pyarrow", "zarr")


class Versions(Record):
    """What a process computes with; ``bundle``: fingerprint of the networks."""

    scanner: str
    python: str
    bundle: str
    libraries: dict[str, str]


def current_versions(bundle: str) -> Versions:
    """The versions of this process.

    Parameters
    ----------
    bundle
        Fingerprint of the bundle that it has loaded.
    """
    return Versions(
        scanner=scanner.__version__,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        bundle=bundle,
        libraries={name: str(importlib.import_module(name).__version__) for name in SHARED_LIBRARIES},
    )


def version_differences(own: Versions, drivers: Versions) -> tuple[str, ...]:
    """What a worker has otherwise than the driver, one phrase each; empty where it may work for it."""
    pairs = [("scanner", own.scanner, drivers.scanner), ("python", own.python, drivers.python)]
    pairs += [(name, own.libraries.get(name, "none"), version) for name, version in drivers.libraries.items()]
    pairs += [("bundle", own.bundle[:12], drivers.bundle[:12])]
    return tuple(f"{name} {here} where the driver has {there}" for name, here, there in pairs if here != there)
