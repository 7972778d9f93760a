"""What the camera does to light: zero points, point spread functions, noise, artefacts."""
