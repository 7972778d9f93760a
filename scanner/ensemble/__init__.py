"""What a cutout is worth: the bundle of seven networks, its session, the embedding grid, the threshold, the calibration."""
