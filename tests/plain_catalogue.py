"""The rules of merging, read aloud: what is done in the package for catalogues of any size, for those that memory holds."""

import math

import numpy as np
import pyarrow as pa

from scanner.catalogue import columns, rank
from scanner.catalogue.known_lenses import KnownLensMatcher
from scanner.catalogue.merge import Rule, complete, deduplicate
from scanner.sphere import separation_deg


def with_rule_columns(rows, bundles=()):
    """Rows with what the rule of deduplication needs beside them."""
    for name, values in (
        (rank.SCORED, columns.scored(rows)),
        (rank.BUNDLE_PLACE, rank.bundle_place(rows["bundle"], bundles)),
    ):
        rows = rows.append_column(name, pa.array(values))
    return rows


def best_first(rows, bundles=()):
    """Row numbers in order of rank."""
    place = {bundle: number for number, bundle in enumerate(bundles)}
    listed, scored = rows.to_pylist(), columns.scored(rows)

    def key(i):
        row = listed[i]
        p, grid = row["p_calibrated"], row["grid_value"]
        return (
            not scored[i], place.get(row["bundle"], len(place)),
            math.isnan(p), 0.0 if math.isnan(p) else -p, math.isnan(grid), 0.0 if math.isnan(grid) else -grid,
            row["target_id"], row["tile_id"], row["run"],
        )  # fmt: skip

    return sorted(range(len(rows)), key=key)


def ranked(rows, bundles=()):
    """Rows in order of rank, with it."""
    rows = rows.take(pa.array(best_first(rows, bundles), pa.int64()))
    return columns.with_column(rows, columns.RANK_COLUMN, np.arange(1, len(rows) + 1))


def listed(merged_rows, maximum):
    """What lists show of a merged catalogue of fewer than 100,000 objects: the 200 best, and the candidates below them."""
    shown = [row["rank"] <= 200 or row["is_candidate"] for row in merged_rows.to_pylist()]
    return columns.as_schema(merged_rows.filter(pa.array(shown, pa.bool_())).slice(0, maximum), columns.CANDIDATE_SCHEMA)


RULE, NOTHING_KNOWN = Rule(0.5), KnownLensMatcher(None, 1.0)


def merged(rows, rule=RULE, known=NOTHING_KNOWN):
    """All rows at once as a merged catalogue, in order of rank."""
    kept = deduplicate(with_rule_columns(rows, rule.bundles), rule).kept
    listed = ranked(rows.filter(pa.array(kept)), rule.bundles)
    return complete(listed, known, PlainSystems(listed))


class PlainSystems:
    """Systems by looking at every pair: from the best to the worst, an object joins the best leader near, or leads."""

    def __init__(self, listed, radius_arcsec=8.0):
        self._radius, self._leaders = radius_arcsec / 3600.0, {}
        may_lead = -(-len(listed) // 100)
        for row in listed.select(["ra", "dec", "rank", "is_candidate"]).to_pylist():
            if (row["is_candidate"] or row["rank"] <= may_lead) and self._leader(row["ra"], row["dec"]) is None:
                self._leaders.setdefault(self._strip(row["dec"]), []).append((row["ra"], row["dec"], row["rank"]))

    def _strip(self, dec):
        """What is near in the sky lies in the same strip of declination or in the next one."""
        return math.floor(dec / self._radius)

    def _leader(self, ra, dec):
        strip = self._strip(dec)
        places = [place for number in (strip - 1, strip, strip + 1) for place in self._leaders.get(number, ())]
        if not places:
            return None
        ras, decs, ranks = np.array(places).T
        n = len(places)
        near = separation_deg(np.full(n, ra), np.full(n, dec), ras, decs) <= self._radius
        return int(ranks[near].min()) if near.any() else None

    def of(self, ra, dec, ranks):
        found = [self._leader(*place) for place in zip(ra.tolist(), dec.tolist(), strict=True)]
        pairs = zip(found, ranks.tolist(), strict=True)
        return np.array([own if leader is None else min(leader, own) for leader, own in pairs], dtype=np.int64)
