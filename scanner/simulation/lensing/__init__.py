"""Where light is bent: distances, deflections, images and magnifications."""
