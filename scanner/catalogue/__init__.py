"""What is kept: the columns of the tables, their ranking and deduplication, and the files they are written to."""
