"""The web pages: what people look at in a browser."""
