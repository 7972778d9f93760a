"""scanner: finds strong gravitational lenses in Euclid-like survey imaging."""

__version__ = "0.1.0"
