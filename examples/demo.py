"""Draw two tiles of sky with known lenses, scan them, and see how many of the lenses came out on top.

Usage: ``python examples/demo.py [FOLDER]`` (default: demo-run). Needs ``pip install .[cpu]`` and nothing else. The commands it
runs are printed: they are what a user would type.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from astropy import units as u
from astropy.coordinates import SkyCoord

#: A truth position and a catalogue position closer than this are the same object.
MATCH_RADIUS = 1.0 * u.arcsec


def scanner(*words: str) -> None:
    """Run a scanner command, showing it first; stop the demo with its exit code if it fails."""
    print("$ scanner", *words, flush=True)
    code = subprocess.run([sys.executable, "-m", "scanner", *words], check=False).returncode
    if code:
        sys.exit(code)


def lens_ranks(sky: Path, scan: Path) -> tuple[np.ndarray, int, int]:
    """Rank of every visible injected lens, infinite where it is not scored; how many are candidates; how many have no score."""
    truth = pq.read_table(sky / "truth.parquet", columns=["ra", "dec", "is_lens", "visible"])
    lenses = truth.filter(pc.and_(truth["is_lens"], truth["visible"]))
    found = pq.read_table(scan / "catalogue" / "dataset", columns=["ra", "dec", "rank", "p_calibrated", "is_candidate"])
    index, separation, _ = positions(lenses).match_to_catalog_sky(positions(found))
    is_listed, is_scored = separation < MATCH_RADIUS, np.isfinite(found["p_calibrated"].to_numpy()[index])
    ranks = np.where(is_listed & is_scored, found["rank"].to_numpy()[index], np.inf)
    is_candidate = is_listed & found["is_candidate"].to_numpy()[index]
    return ranks, int(is_candidate.sum()), int((is_listed & ~is_scored).sum())


def positions(rows: pa.Table) -> SkyCoord:
    """Sky positions of a table's rows."""
    return SkyCoord(rows["ra"].to_numpy() * u.deg, rows["dec"].to_numpy() * u.deg)


def main(folder: Path) -> None:
    """Draw, scan, compare."""
    sky, scan = folder / "sky", folder / "scan"
    if not (sky / "tile-list.txt").exists():
        scanner("simulate", "tiles", "--n", "2", "--size", "2000", "--seed", "7", "--out", str(sky))
    scanner("run", str(sky / "tile-list.txt"), "--out", str(scan))
    ranks, n_candidates, n_unscored = lens_ranks(sky, scan)
    n_lenses = len(ranks)
    n_objects = pq.read_table(scan / "catalogue" / "dataset", columns=["rank"]).num_rows
    print(
        f"\nOf {n_lenses} injected lenses with visible arcs (S/N > 25, over 100 arc pixels), {int((ranks <= 200).sum())} are "
        f"among the best 200 of {n_objects:,} objects, which the sheet shows, {int((ranks <= 2 * n_lenses).sum())} among the "
        f"first {2 * n_lenses}; {n_candidates} are marked as candidates. The median lens has rank {np.median(ranks):.0f}."
    )
    print(f"{n_unscored} more lie so near the edge of a mosaic that they are listed, but not scored.")
    print(f"Open {scan / 'candidates.html'} in a browser.")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo-run"))
