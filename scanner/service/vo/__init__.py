"""Protocols of the Virtual Observatory: cone search, TAP, DataLink, cutouts, coverage; and their VOTables."""
