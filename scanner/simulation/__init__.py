"""Simulated Euclid-like imaging: labelled cutouts to train on, small mosaics to scan, both from one renderer.

:mod:`~scanner.simulation.populations` draws what is on the sky, :mod:`~scanner.simulation.scene` turns it into noiseless
pixels with the profiles of :mod:`~scanner.simulation.galaxies` and the deflections of :mod:`~scanner.simulation.lens`,
:mod:`~scanner.simulation.instrument` adds telescope and noise; :mod:`~scanner.simulation.dataset` and
:mod:`~scanner.simulation.mosaic` write the files.
"""
