"""What a painted lens costs beside an object of a scan, and how many lenses a catalogue lists, and how many detection.

    python benchmarks/recovery.py --out FOLDER [--size 2400 --lenses 256]

A tile is drawn and scanned from its catalogue, and lenses are painted into it; then once more by detection. Costs are processor
time of the workers. Of a lens it is what a recovery takes more than one with a quarter of the lenses, so that start-up and the
survey of the tile, which large recoveries share out, are left aside; of an object it is what the run's own record says. Most
objects of a run are ended by the screen, so waves are also scanned twice in this process: the second time their light is drawn
already, and what is left is to list, cut and score the very same objects.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

import scanner
from scanner.config import load
from scanner.ensemble import bundles
from scanner.ensemble.session import Scorer
from scanner.recovery.paint import PaintedWave, RecoveryRequest, lay_waves, survey_places, tile_brush
from scanner.recovery.scan import scan_wave
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list
from scanner.sky.tile_images import open_tile


def main() -> None:
    """Draw, scan, recover, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for tile, runs and recoveries; a new one")
    parser.add_argument("--size", type=int, default=2400, help="pixels along a side of the tile [2400]")
    parser.add_argument("--lenses", type=int, default=256, help="lenses to paint [256]")
    arguments = parser.parse_args()
    sky, n = arguments.out / "sky", arguments.lenses
    draw_tiles(TilesRequest(n_tiles=1, size=arguments.size, seed=8, lenses_per_tile=6, density=1.0), sky, 1)
    tables = {}
    for source in ("catalogue", "detection"):
        run, seconds = arguments.out / source, []
        scanner.scan(sky / "tile-list.txt", run, targets=source, workers=1, keep="none", progress=False)
        for n_lenses in (n // 4, n):
            began, out = workers_seconds(), arguments.out / f"{source}-{n_lenses}"
            scanner.recover(run, out=out, n=n_lenses, seed=2, workers=1, progress=False)
            seconds.append(workers_seconds() - began)
        lenses = tables[source] = pq.read_table(out / "lenses.parquet").to_pandas()
        of_lens = (seconds[1] - seconds[0]) / (n - n // 4)
        cost = scanner.open(run).record.cost
        of_object = cost.total.core_seconds / cost.n_objects
        waves = int(lenses["wave"].max()) + 1
        print(
            f"{source}: {cost.n_objects:,} objects of {of_object:.3f} core seconds; {n} lenses in {waves} waves: {of_lens:.3f}"
        )
        print(f"  a lens costs {of_lens / of_object:.1f} times an object", end="; ")
        print(f"{waves} scans of the painted tile: {waves * of_object * cost.n_objects / (of_lens * n):.1f} times as much")
    painting_beside_scoring(sky, n // 4)
    real = tables["catalogue"]["deflector_is_real"]
    for name, chosen in (("real galaxies", real), ("the sky", ~real)):
        shares = [tables[source]["separation_arcsec"][chosen].notna().mean() for source in ("catalogue", "detection")]
        print(f"listed of {chosen.sum()} lenses on {name}: {shares[0]:.1%} by catalogue, {shares[1]:.1%} by detection")


def painting_beside_scoring(sky: Path, n: int) -> None:
    """Print how many cutouts are scored for a lens, and its cost over that of listing, cutting and scoring alone."""
    config = load(None, {"targets.source": "catalogue", "cutouts.keep": "none"}, {})
    (tile,) = tile_list.read(str(sky / "tile-list.txt"), config.storage).tiles.values()
    scorer = Scorer(bundles.load(config.scoring.bundle, config.storage), "cpu", screen="auto")
    request, spent, n_cutouts = RecoveryRequest(n_lenses=n, seed=3), np.zeros(2), 0
    with tempfile.TemporaryDirectory() as name, open_tile(tile, config.cutouts, Path(name)) as images:
        surveyed = survey_places(tile, config.cutouts, request, n, Path(name))
        waves, brush = lay_waves(tile.tile_id, surveyed.places, request, n, 0), tile_brush(tile, surveyed.summary, Path(name))
        for number in np.unique(waves.wave).tolist():
            start = time.process_time()
            wave = PaintedWave(images, brush, request.injection(tile), waves.take(number))
            rows = np.arange(len(wave.numbers))
            found = scan_wave(wave, rows, tile, surveyed, config, scorer)
            wave.truth(rows.tolist())
            middle = time.process_time()
            scan_wave(wave, rows, tile, surveyed, config, scorer)
            spent += middle - start, time.process_time() - middle
            n_cutouts += int(np.isfinite(found["separation_arcsec"]).sum())
    print(
        f"{n} lenses, {n_cutouts / n:.2f} cutouts scored a lens: {spent[0] / n:.3f} core seconds each; to list, cut and score "
        f"the same objects {spent[1] / n:.3f}, so a lens costs {spent[0] / spent[1]:.2f} times that"
    )


def workers_seconds() -> float:
    """Processor time of all processes that this one began and that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
