"""What is asked of a catalogue: regions of the sky, names, scores, SQL, ADQL; no more is read than an answer needs."""
