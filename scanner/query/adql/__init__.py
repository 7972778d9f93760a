"""ADQL 2.1: the language that the Virtual Observatory asks tables in, translated to SQL over one table."""
