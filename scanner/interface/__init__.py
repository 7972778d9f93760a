"""The Python interface: what ``import scanner`` offers and the command line calls."""
