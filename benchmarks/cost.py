"""What a scan costs with and without the screen and test-time augmentation, and which lenses the screen loses.

    python benchmarks/cost.py [--size 4800] [--magnitude 22] [--seed 5] [--bundle BUNDLE ...] [--provider cpu openvino ...]
    python benchmarks/cost.py --lenses SETS/eval SETS/survey --others SETS/challenge --cache CACHE

The first draws a tile without lenses, which are too rare to cost anything, and scans it again and again, each time in a process
of its own, on one thread: with the first bundle without its screen, and with each bundle as it is on each provider. It prints
processor time by stage, per thousand objects and square degree, and that of the same cutouts through the networks in torch's
eager mode. Ratios are of processor time within one call, so that other work on the machine hardly matters.

The second scores lenses and, of the non-lenses, those that pass, once and as they are (without test-time augmentation), and
counts the lenses that all members find at a false-positive rate and that do not pass. Log-odds are kept in ``--cache``.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from scoring import Cutouts, torch_scorer

from scanner.config import RunConfig, load
from scanner.cutouts.extract import cut
from scanner.cutouts.quality import fill_bad_pixels
from scanner.ensemble import bundles
from scanner.ensemble.bundle import Bundle
from scanner.ensemble.session import PROVIDERS, open_session
from scanner.evaluation.scores import dataset_logits, kept_array
from scanner.labelled_set import LabelledSet
from scanner.records import Float64
from scanner.simulation.mosaics.tiles import TilesRequest, draw_tiles
from scanner.sky import tile_list
from scanner.sky.targets import list_targets
from scanner.sky.tile_images import open_tile
from scanner.survey.messages import TileJob
from scanner.survey.scan.tile import load_scorer, scan_tile
from scanner.training.cascade import losses

#: Cutouts that torch's eager mode scores: it is slow, and one is like another.
EAGER = 64


def config_of(magnitude: float, screen: str) -> RunConfig:
    return load(None, {"targets.magnitude_limit": magnitude, "scoring.screen": screen, "engine.parallel_scores": 1}, {})


def scan(sky: Path, bundle: str, screen: str, provider: str, magnitude: float) -> None:
    """What a child does: scan the tile, and print what each stage cost."""
    (tile,) = tile_list.read(str(sky / "tile-list.txt")).tiles.values()
    with tempfile.TemporaryDirectory(dir=sky) as out:
        job = TileJob(
            tile=tile,
            run_folder=out,
            config=config_of(magnitude, screen),
            provider=provider,
            bundle=bundle,
            config_fingerprint="",
            bundle_fingerprint="",
        )
        load_scorer(job)
        commit = scan_tile(job).commit
        assert commit is not None
        print(commit.model_dump_json(include={"n_scored", "n_screened", "n_decided", "sky_area_deg2", "core_seconds"}))


def eager_core_seconds(sky: Path, bundle: Bundle, magnitude: float) -> float:
    """Processor seconds that an object takes in torch's eager mode."""
    config = config_of(magnitude, "none")
    (tile,) = tile_list.read(str(sky / "tile-list.txt")).tiles.values()
    with open_tile(tile, config.cutouts, sky) as images:
        targets = list_targets(tile, images.vis, config.targets).targets
        (batch,) = cut(images, targets.take(np.arange(min(EAGER, len(targets)))), EAGER)
    cutouts = Cutouts(*fill_bad_pixels(batch), batch.sky, batch.sigma)
    score = torch_scorer(bundle, channels_last=False)
    score(cutouts.rows(0, 8))
    start = time.process_time()
    score(cutouts)
    return (time.process_time() - start) / len(batch)


def compare_costs(arguments: argparse.Namespace) -> None:
    tried = [bundles.load(name) for name in arguments.bundle or [None]]
    with tempfile.TemporaryDirectory() as folder:
        sky = Path(folder)
        draw_tiles(TilesRequest(n_tiles=1, size=arguments.size, seed=arguments.seed, lenses_per_tile=0.0), sky, 1)
        providers = arguments.provider
        variants = [(f"{tried[0].manifest.version}, no screen", tried[0], "none", providers[0])]
        variants += [
            (f"{bundle.manifest.version}, {provider}", bundle, "bundle", provider) for provider in providers for bundle in tried
        ]
        header = ("objects", "by all", "cut", "score", "others", "a thousand", "a deg²", "times")
        print(f"{'core-s':32}" + "".join(f"{word:>11}" for word in header))
        first = None
        for name, bundle, screen, provider in variants:
            child = ["--child", str(sky), str(bundle.path), screen, provider, "--magnitude", str(arguments.magnitude)]
            command = [sys.executable, __file__, *child]
            told = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
            n, stages = told["n_scored"], told["core_seconds"]
            total = sum(stages.values())
            first = first or total
            cutting, scoring = stages["cut"], stages["score"]
            parts = [1000 * value / n for value in (cutting, scoring, total - cutting - scoring, total)]
            words = [f"{n}", f"{n - told['n_screened']}", *(f"{part:.2f}" for part in parts)]
            words += [f"{total / told['sky_area_deg2']:,.0f}", f"{first / total:.2f}"]
            print(f"{name:32}" + "".join(f"{word:>11}" for word in words), flush=True)
        eager = 1000 * eager_core_seconds(sky, tried[0], arguments.magnitude)
        print(f"torch, eager, batches of 8, each object once: {eager:.1f} core-s a thousand for the networks alone")


def count_losses(arguments: argparse.Namespace) -> None:
    bundle = bundles.load(arguments.bundle[0] if arguments.bundle else None)
    screening = bundle.screening("bundle")
    assert screening is not None
    session = open_session(bundle, "cpu", screens=True)

    def scored(path: Path, lenses: bool) -> tuple[Float64, np.ndarray]:
        """Scores of the set's lenses or non-lenses, and which of them pass."""
        dataset = LabelledSet(path)
        rows = np.flatnonzero(dataset.truth.is_lens == lenses).astype(np.int64)
        place = arguments.cache / f"{bundle.manifest.networks_sha256[:16]}-{dataset.content_key[:16]}"
        width = session.n_members

        def first() -> np.ndarray:
            batches = dataset.batches(rows, 128)
            return np.concatenate([session.screen_logits(vis, nisp, one.sky, one.sigma) for one, vis, nisp in batches])

        name = "lenses" if lenses else "others"
        passes = screening.passing(kept_array(place / f"{name}-screen.npy", (len(rows), width), first))
        wanted = rows if lenses else rows[passes]
        once = np.zeros_like(wanted)
        logits = kept_array(
            place / f"{name}-{len(wanted)}.npy", (len(wanted), width), lambda: dataset_logits(session, dataset, wanted, once)
        )
        scores = np.full(len(rows), -np.inf)
        scores[slice(None) if lenses else passes] = bundle.calibration.ranking_score(logits)
        return scores, passes

    others, pass_too = scored(arguments.others, lenses=False)
    print(f"{len(others):,} non-lenses, of which {pass_too.mean():.2%} pass")
    found = {path.resolve().name: scored(path, lenses=True) for path in arguments.lenses}
    found["all of them"] = tuple(np.concatenate(parts) for parts in zip(*found.values(), strict=True))  # type: ignore[assignment]
    for name, (lenses, passing) in found.items():
        is_lens = np.arange(len(lenses) + len(others)) < len(lenses)
        measured = losses(name, np.concatenate([lenses, others]), np.concatenate([passing, pass_too]), is_lens)
        words = [f"{one.metric}: {one.value:.4f} [{one.low:.4f}, {one.high:.4f}]" for one in measured]
        print(f"{name} ({len(lenses):,} lenses)  " + "   ".join(words), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", nargs="+", help="folders or names [default: the default bundle]")
    parser.add_argument("--size", type=int, default=4800)
    parser.add_argument("--magnitude", type=float, default=22.0)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--lenses", type=Path, nargs="+")
    parser.add_argument("--others", type=Path)
    parser.add_argument("--cache", type=Path)
    parser.add_argument("--provider", nargs="+", default=["cpu"], choices=PROVIDERS)
    parser.add_argument("--child", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        scan(Path(arguments.child[0]), *arguments.child[1:], arguments.magnitude)
    elif arguments.lenses:
        count_losses(arguments)
    else:
        compare_costs(arguments)


if __name__ == "__main__":
    main()
