"""One file a verb: it parses, calls one function, prints."""
