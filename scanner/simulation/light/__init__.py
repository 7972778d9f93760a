"""What shines, and how it falls on pixels: components of a scene, and their renderer."""
