"""Who may ask what of a service, and how much."""
