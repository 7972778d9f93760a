"""Where the pixels are: the tile list, the mosaics, how their grids lie, and the targets."""
