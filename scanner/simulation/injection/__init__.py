"""Real pixels in the loop: lenses and their look-alikes painted into a user's own mosaics."""
