"""Labelled cutouts with their truth, to train and to measure on."""
