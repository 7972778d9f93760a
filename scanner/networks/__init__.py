"""OU-66 and OU-200 of Wilde et al. (2022), Tables 3 and 4, and the seven members built on them (torch)."""

from scanner.networks.architecture import LENS, NON_LENS, build

__all__ = ["LENS", "NON_LENS", "build"]
