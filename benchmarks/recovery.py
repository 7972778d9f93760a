"""What a recovery costs beside scanning the painted mosaics whole, and what its detection loses that a catalogue has.

    python benchmarks/recovery.py --out FOLDER [--size 2400 --lenses 256]

A tile is drawn and scanned by one worker, from its catalogue; lenses are painted into it and scanned by one worker. Times are
on the clock, of one call after the other; what counts is their ratio. A second run of the tile, by detection, gives the second
figure: how many lenses on real galaxies a catalogue lists, and how many detection on the painted image.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import pyarrow.parquet as pq

import scanner
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles


def main() -> None:
    """Draw, scan, recover, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for tile, runs and recoveries")
    parser.add_argument("--size", type=int, default=2400, help="pixels along a side of the tile [2400]")
    parser.add_argument("--lenses", type=int, default=256, help="lenses to paint [256]")
    arguments = parser.parse_args()
    sky, n = arguments.out / "sky", arguments.lenses
    if not sky.exists():
        draw_tiles(TilesRequest(n_tiles=1, size=arguments.size, seed=8, lenses_per_tile=6, density=1.0), sky, 1)
    tables, seconds = {}, {}
    for source in ("catalogue", "detection"):
        run, rec = arguments.out / source, arguments.out / f"{source}-recovery"
        began = time.perf_counter()
        scanner.scan(sky / "tile-list.txt", run, targets=source, workers=1, keep="none", progress=False)
        seconds[source, "run"] = time.perf_counter() - began
        began = time.perf_counter()
        scanner.recover(run, out=rec, n=n, seed=2, workers=1, progress=False)
        seconds[source, "recovery"] = time.perf_counter() - began
        tables[source] = pq.read_table(rec / "lenses.parquet").to_pandas()
    lenses, waves = tables["catalogue"], int(tables["catalogue"]["wave"].max()) + 1
    n_objects = scanner.open(arguments.out / "catalogue").record.cost.n_objects
    run, recovery = seconds["catalogue", "run"], seconds["catalogue", "recovery"]
    print(f"a scan of the tile: {n_objects:,} objects, {run:.1f} s, {1e3 * run / n_objects:.0f} ms an object")
    print(f"a recovery: {n:,} lenses in {waves} waves, {recovery:.1f} s, {1e3 * recovery / n:.0f} ms a lens")
    print(f"a lens costs {recovery / n / (run / n_objects):.2f} times an object")
    print(f"scanning the {waves} painted tiles whole would take {waves * run / recovery:.1f} times as long")
    real = lenses["deflector_is_real"].to_numpy()
    for name, chosen in (("real galaxies", real), ("the sky", ~real)):
        shares = [tables[source]["separation_arcsec"][chosen].notna().mean() for source in ("catalogue", "detection")]
        print(f"listed of lenses on {name}: {shares[0]:.3f} by catalogue, {shares[1]:.3f} by detection")


if __name__ == "__main__":
    main()
