"""LSDB's side of benchmarks/query.py, in an environment of its own.

Reads cones as JSON from standard input, one a line: RA, Dec (degrees), radius (arcseconds). Prints the versions, and for each
cone the number of rows and the seconds of wall and CPU that ``cone_search(…).compute()`` took.
"""

import json
import sys
import time
import warnings

import dask
import lsdb

warnings.filterwarnings("ignore")


def main(folder: str, threads: int) -> None:
    catalogue = lsdb.open_catalog(folder, columns="all")
    print(json.dumps({"lsdb": lsdb.__version__, "dask": dask.__version__}), flush=True)
    with dask.config.set(scheduler="threads", num_workers=threads):
        for line in sys.stdin:
            ra, dec, radius_arcsec = json.loads(line)
            wall, cpu = time.perf_counter(), time.process_time()
            n = len(catalogue.cone_search(ra=ra, dec=dec, radius_arcsec=radius_arcsec).compute())
            print(json.dumps([n, time.perf_counter() - wall, time.process_time() - cpu]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
