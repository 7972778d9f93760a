"""The service's JSON API."""
