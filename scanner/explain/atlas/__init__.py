"""The atlas of a bundle: what its networks are made of, in pictures (Wilde et al. 2022, Figs. 14 to 16)."""
