"""Tiles of simulated sky that can be scanned, with catalogue and truth."""
