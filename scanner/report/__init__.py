"""For people: the contact sheet of the candidates and the figures of a run."""
