"""What computes, in one line: results of two machines of the same line are the same bit for bit.

In: an inference provider. Out: processor and the instructions that libraries choose their kernels by, GPU and driver where one
computes, versions of the libraries that compute. Refused: nothing; what cannot be found out is left out.
"""

from __future__ import annotations

import platform
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from scanner.ensemble.session import BATCH, Provider

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
