"""Simulated Euclid-like imaging: labelled cutouts to train on, mosaics to scan, both from one renderer.

Light goes down this list, and a folder imports only from those above it: ``lensing`` bends it, ``telescope`` says what a
camera makes of it, ``light`` draws components on pixels, ``population`` says what is on the sky, ``datasets`` and ``mosaics``
write files.
"""
