"""Cutouts of all bands around one centre, their quality, and the zarr store that keeps them."""
