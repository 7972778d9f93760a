"""Labels that others gave: tables of them, and the labelled sets that become of them."""
