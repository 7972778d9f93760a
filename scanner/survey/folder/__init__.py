"""The run folder: what was asked, what is committed, what may be skipped, what it cost."""
