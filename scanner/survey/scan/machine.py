"""What computes here: cores, the machine's fingerprint, and the versions that driver and workers must share."""

from __future__ import annotations

import importlib
import platform
import sys
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import scanner
from scanner.ensemble.session import BATCH
from scanner.records import Provider, Record

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


def cores() -> int:
    """Processor cores that this process may use: its affinity, and the quota of its container."""
    from dask.system import cpu_count

    return int(cpu_count())


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
