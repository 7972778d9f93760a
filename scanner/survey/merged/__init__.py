"""Merged catalogues: those of runs and those of surveys, which many runs make together."""
