"""The page of one object: every method's picture of why the networks say what they say."""
