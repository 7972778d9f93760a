"""Rows of a survey run's dashboard on what its workers do: how many objects they get through, and where the time goes."""

from __future__ import annotations

from layout import RATE, WHICH, Rows, panel

WORKERS: Rows = {
    "Throughput of the workers": [
        panel(
            "timeseries",
            "Objects",
            "suffix: objects/s",
            "Objects cut from the mosaics and scored by the networks. Objects with too many bad pixels are cut but not scored.",
            {
                "cut": f"sum(rate(scanner_objects_cut_total{{{WHICH}}}[{RATE}]))",
                "scored": f"sum(rate(scanner_objects_scored_total{{{WHICH}}}[{RATE}]))",
            },
            12,
        ),
        panel(
            "timeseries",
            "Objects scored, by worker",
            "suffix: objects/s",
            "A worker far below the others shares its processors, or has no GPU.",
            {"{{instance}}": f"sum by (instance) (rate(scanner_objects_scored_total{{{WHICH}}}[{RATE}]))"},
            12,
        ),
        panel(
            "timeseries",
            "Input read",
            "Bps",
            "Mosaics and catalogues, in bytes as they are stored.",
            {"{{instance}}": f"sum by (instance) (rate(scanner_read_bytes_total{{{WHICH}}}[{RATE}]))"},
            12,
        ),
        panel(
            "timeseries",
            "What is found",
            "percentunit",
            "Of the objects scored: those with a quality flag and those at or above the threshold, in tiles committed within "
            "an hour. A jump of either tells of bad input sooner than any failure.",
            {
                "flagged": f"sum(increase(scanner_objects_flagged_total{{{WHICH}}}[1h]))"
                f" / (sum(increase(scanner_objects_scored_total{{{WHICH}}}[1h])) > 0)",
                "above the threshold": f"sum(increase(scanner_objects_decided_total{{{WHICH}}}[1h]))"
                f" / (sum(increase(scanner_objects_scored_total{{{WHICH}}}[1h])) > 0)",
            },
            12,
        ),
    ],
    "Where the time goes": [
        panel(
            "timeseries",
            "Workers busy, by stage",
            "suffix: s/s",
            "Seconds of work per second. Stages of one tile overlap, so the sum is more than the number of workers where the "
            "pipeline works as it should. Fetch on top: the store is slow. Score on top: this is how it should be.",
            {"{{stage}}": f"sum by (stage) (rate(scanner_stage_seconds_sum{{{WHICH}}}[{RATE}]))"},
            12,
            stacked=True,
        ),
        panel(
            "timeseries",
            "Time of a piece of work, 90 %",
            "s",
            "Nine of ten pieces take less: a tile to fetch, open, targets and commit, a batch to cut, score and store.",
            {
                "{{stage}}": "histogram_quantile(0.9, sum by (stage, le) "
                f"(rate(scanner_stage_seconds_bucket{{{WHICH}}}[{RATE}])))"
            },
            12,
        ),
        panel(
            "timeseries",
            "Time of a tile",
            "s",
            "From a tile's start to its commit, for tiles finished within half an hour.",
            {
                "half": f"histogram_quantile(0.5, sum by (le) (rate(scanner_tile_seconds_bucket{{{WHICH}}}[30m])))",
                "nine of ten": f"histogram_quantile(0.9, sum by (le) (rate(scanner_tile_seconds_bucket{{{WHICH}}}[30m])))",
            },
            8,
        ),
        panel(
            "timeseries",
            "Batches that wait",
            "none",
            "Mean of the workers. Batches that wait to be scored: the networks are the narrow place, as they should be. None "
            "do: cutting or the disk is.",
            {"before {{stage}}": f"avg by (stage) (scanner_queue_depth_batches{{{WHICH}}})"},
            8,
        ),
        panel(
            "timeseries",
            "Objects in a batch",
            "none",
            "Mean size of the batches given to the networks. Small batches leave a GPU idle.",
            {
                "objects": f"sum(rate(scanner_batch_size_objects_sum{{{WHICH}}}[{RATE}]))"
                f" / (sum(rate(scanner_batch_size_objects_count{{{WHICH}}}[{RATE}])) > 0)"
            },
            8,
        ),
    ],
}
