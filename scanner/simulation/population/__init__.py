"""What is on the sky: every class of object, drawn from a random generator, and when it counts as a lens."""
