"""Hostile and odd queries in ADQL, as many as one likes, and what came of them.

    python benchmarks/fuzz_adql.py [--queries 10000] [--seed 1]

Half of the queries are well-formed, with values of all kinds in every place that takes them; the others are such ones with
words left out, doubled, swapped or replaced by words of SQL that ADQL does not have, and bare strings of words. Asked is a
catalogue of 3000 rows, which lies in a file of the one folder that the database may open. Printed: queries by what came of
them, and faults. A fault is any exception but AdqlError, an answer that takes longer than 10 s, a refusal in the database's
words or one that it gives no reason for, a file that was made. The exit code is 1 if there was any.
"""

from __future__ import annotations

import argparse
import random
import re
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from made_catalogue import made_rows

from scanner.query.adql.functions import TableDescription
from scanner.query.adql.grammar import AdqlError
from scanner.query.adql.translate import Relation, answer, translate
from scanner.query.database import open_database, time_limit

NUMBERS = (
    "ra",
    "dec",
    "p_calibrated",
    "flags",
    "target_id",
    "known_separation",
    "magnitude_vis",
    "1",
    "0",
    "-3",
    "2.5",
    "1e300",
)
NUMBERS += ("9223372036854775807", "1e-300", "NULL")
TEXTS = ("tile_id", "name", "known_name", "'a'", "''", "'%2_'", "'it''s'", "'/etc/passwd'")
_ODD = """
read_csv read_parquet glob COPY ATTACH PRAGMA SET INSTALL JOIN UNION ; -- /* */ \\ \x00 ' " [ ] { } $1 ? @ t relation c0
"""
ODD = _ODD.split()
ONE_NUMBER = ("ABS", "SQRT", "LOG", "LOG10", "EXP", "FLOOR", "CEILING", "ROUND", "TRUNCATE", "SIN", "ACOS", "COT", "RADIANS")
MAX_SECONDS = 10


class Queries:
    """Makes them."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def number(self, depth: int) -> str:
        """A value that is a number."""
        pick = self.random.choice
        if depth == 0 or self.random.random() < 0.25:
            return pick(NUMBERS)
        made = [
            f"({self.number(depth - 1)} {pick('+-*/')} {self.number(depth - 1)})",
            f"{pick(ONE_NUMBER)}({self.number(depth - 1)})",
            f"{pick(('MOD', 'POWER', 'ATAN2', 'COALESCE'))}({self.number(depth - 1)}, {self.number(depth - 1)})",
            f"CAST({self.number(depth - 1)} AS {pick(('DOUBLE PRECISION', 'BIGINT', 'REAL'))})",
            f"DISTANCE(ra, dec, {self.number(0)}, {self.number(0)})",
            f"DISTANCE(POINT('ICRS', ra, dec), POINT({self.random.uniform(0, 360)}, {self.random.uniform(-90, 90)}))",
            "ivo_healpix_index(5, ra, dec)",
            f"-({self.number(depth - 1)})",
        ]
        return pick(made)

    def text(self, depth: int) -> str:
        """A value that is a text."""
        if depth == 0 or self.random.random() < 0.4:
            return self.random.choice(TEXTS)
        made = [
            f"({self.text(depth - 1)} || {self.text(depth - 1)})",
            f"{self.random.choice(('LOWER', 'UPPER'))}({self.text(depth - 1)})",
            f"CAST({self.number(depth - 1)} AS VARCHAR)",
        ]
        return self.random.choice(made)

    def region(self) -> str:
        """A region of the sky."""
        ra, dec, size = self.random.uniform(0, 360), self.random.uniform(-80, 80), self.random.choice((1e-4, 0.1, 5, 60, 170))
        triangle = f"POLYGON({ra}, {dec}, {(ra + 9) % 360}, {dec}, {ra}, {dec + 9})"
        return self.random.choice((f"CIRCLE({ra}, {dec}, {size})", f"BOX('ICRS', {ra}, {dec}, {size}, 5)", triangle))

    def condition(self, depth: int) -> str:
        """A condition."""
        pick = self.random.choice
        if depth > 0 and self.random.random() < 0.4:
            joined = f"({self.condition(depth - 1)} {pick(('AND', 'OR'))} {self.condition(depth - 1)})"
            return pick((joined, f"NOT {self.condition(depth - 1)}"))
        made = [
            f"{self.number(depth)} {pick(('=', '<>', '<', '>', '<=', '>='))} {self.number(depth)}",
            f"{self.text(depth)} {pick(('=', '<>', '<', 'LIKE', 'NOT LIKE', 'ILIKE'))} {self.text(depth)}",
            f"{self.number(depth)} {pick(('', 'NOT '))}BETWEEN {self.number(0)} AND {self.number(0)}",
            f"{self.number(0)} IN ({self.number(0)}, {self.number(depth)})",
            f"{self.text(0)} IS {pick(('', 'NOT '))}NULL",
            f"{pick('01')} = CONTAINS(POINT('ICRS', ra, dec), {self.region()})",
            "is_candidate = TRUE",
        ]
        return pick(made)

    def well_formed(self) -> str:
        """A query that is ADQL; it may still ask what no row can answer."""
        pick, chance = self.random.choice, self.random.random
        where = f" WHERE {self.condition(3)}" if chance() < 0.7 else ""
        table = pick(("objects", "made.objects", "OBJECTS AS o"))
        if chance() < 0.3:
            key = pick(("tile_id", "flags", self.number(2), self.text(1)))
            having = f" HAVING {pick(('COUNT(*) > 1', 'MAX(dec) > 0', 'MIN(name) IS NOT NULL'))}" if chance() < 0.5 else ""
            total = f"{pick(('SUM', 'AVG', 'MIN', 'MAX', 'COUNT'))}({self.number(2)})"
            order = pick(("n", "k", "2 DESC"))
            return f"SELECT {key} AS k, COUNT(*) AS n, {total} FROM {table}{where} GROUP BY k{having} ORDER BY {order}"
        items = ", ".join(pick((self.number(3), self.text(2), f"{self.number(1)} AS a{place}")) for place in range(3))
        order = f" ORDER BY {pick((self.number(2), self.text(2), '1', '2 DESC'))}" if chance() < 0.5 else ""
        return f"SELECT {pick(('', 'TOP 5 ', 'ALL '))}{pick((items, '*'))} FROM {table}{where}{order}"

    def one(self) -> str:
        """A query of any sort."""
        query = self.well_formed()
        kind = self.random.random()
        if kind < 0.5:
            return query
        words = re.findall(r"'[^']*'|\w+|\s+|.", query, re.DOTALL)
        if kind > 0.9:
            return " ".join(self.random.choices([*words, *ODD], k=self.random.randint(0, 40)))
        for _ in range(self.random.randint(1, 4)):
            at, other = self.random.randrange(len(words)), self.random.randrange(len(words))
            words[at] = self.random.choice(("", f"{words[at]} {words[other]}", words[other], f" {self.random.choice(ODD)} "))
        return "".join(words)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--queries", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    random_positions = np.random.default_rng(arguments.seed)
    dec = np.degrees(np.arcsin(random_positions.uniform(-1, 1, 3000)))
    rows = made_rows(random_positions.uniform(0, 360, 3000), dec, arguments.seed).sort_by("_healpix_29")
    described = TableDescription(rows.schema, "", ("ra", "dec"), "_healpix_29")
    tables = {"made.objects": described, "objects": described}
    outcomes: Counter[str] = Counter()
    faults = 0
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "dataset"
        folder.mkdir()
        file = folder / "rows.parquet"
        pq.write_table(rows, file, row_group_size=500)
        database = open_database([folder])
        queries = Queries(arguments.seed)
        for _ in range(arguments.queries):
            query = queries.one()
            connection = database.cursor()
            try:
                with time_limit(MAX_SECONDS):
                    translation = translate(query, tables).limited(100)
                    list(answer(connection, translation, Relation("SELECT * FROM read_parquet(?)", (str(file),))))
                outcomes["answered"] += 1
            except AdqlError as error:
                outcomes["refused" if error.place else "refused by what the rows hold"] += 1
                if re.search(r"\n|dataset|simpler parts", str(error)):
                    faults += 1
                    print(f"{error}\n    {query!r}")
            except Exception as error:
                faults += 1
                print(f"{type(error).__name__}: {error}\n    {query!r}")
            finally:
                connection.close()
        if [path.name for path in folder.iterdir()] != [file.name]:
            faults += 1
            print("a file was made beside the catalogue's")
    print(f"{arguments.queries} queries in {time.perf_counter() - start:.0f} s: {dict(outcomes)}; faults: {faults}")
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
