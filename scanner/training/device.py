"""Where torch computes.

In: the name of a device, as torch has them. Out: the device. Refused (UsageError): a name that is none, a GPU that is not
there: training on the CPU unseen would take far longer than it was meant to.
"""

from __future__ import annotations

import torch

from scanner.errors import UsageError


def usable_device(name: str) -> torch.device:
    """The device of a name such as ``cpu``, ``cuda`` or ``cuda:1``, once something was computed on it.

    Raises
    ------
    UsageError
        There is no such device.
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
