"""A finished run looked at again: one object cut and scored anew, and compared."""
