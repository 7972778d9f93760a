"""The run: plan the tiles, scan them on Dask workers, commit each whole, merge what was committed."""
