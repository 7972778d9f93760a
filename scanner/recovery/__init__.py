"""What a run would have found: lenses painted into its own tiles, scanned as it scanned them."""
