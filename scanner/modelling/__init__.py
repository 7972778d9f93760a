"""What bends the light: a lens model of a candidate, and how much better it is than galaxies that happen to lie there."""
