"""Why the networks say what they say, one method a file (Wilde et al. 2022, section 5); needs torch."""
