"""The bundle of seven networks, its session, the embedding grid, the threshold, the calibration."""
