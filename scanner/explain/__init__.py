"""Why the networks say what they say: one file and one verb a method (Wilde et al. 2022, section 5)."""
