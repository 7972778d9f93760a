"""Where the work is done: scheduler, workers, and the engine that hands tiles to them."""
