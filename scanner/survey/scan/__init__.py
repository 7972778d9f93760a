"""One tile: cut, scored, written and committed, in one task or in two."""
