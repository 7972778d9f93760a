"""Where torch computes, how exactly, and with which memory."""

from __future__ import annotations

import ctypes
from typing import Literal

import torch

from scanner.errors import UsageError

#: What convolutions are computed in while training; weights, sums and everything that is validated or exported are float32.
Precision = Literal["float32", "bfloat16"]
#: What torch calls the instructions of a CPU that multiply bfloat16, in tiles and in vectors.
MULTIPLIES_BFLOAT16 = ("amx_bf16", "avx512_bf16")


def usable_device(name: str) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda`` or ``cuda:1``, once something was computed on it.

    Raises
    ------
    UsageError
        There is no such device: to train on the CPU unasked would take far longer than it was meant to.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise UsageError(
            f"--device {name}: torch cannot compute there ({reason}); name another, or run where there is a GPU and its driver."
        ) from None
    return device


def fastest_precision(device: torch.device) -> Precision:
    """Return ``bfloat16`` where it is multiplied in hardware (GPUs, CPUs with AMX or AVX-512 BF16): twice as fast."""
    if device.type == "cpu" and not any(torch.cpu.get_capabilities().get(name) for name in MULTIPLIES_BFLOAT16):
        return "float32"
    return "bfloat16"


#: ``mallopt`` parameters of glibc's malloc.h: trim threshold, top padding, mmap threshold; bytes.
SETTINGS = ((-1, 2**31 - 1), (-2, 2**28), (-3, 2**30))


def keep_freed_memory() -> bool:
    """Raise glibc's mmap and trim thresholds for this process, so that it keeps freed memory; True if that was possible.

    A training step's feature maps are large, alike every time, and costly to map anew: with it, 26 images a second instead of
    14 on one core (OU-VIS, 200 pixels).
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return all(mallopt(parameter, value) == 1 for parameter, value in SETTINGS)
