"""How a run is seen from outside: Prometheus metrics, and the pace at which it goes."""
