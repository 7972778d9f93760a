"""What people ask over the network: Virtual Observatory protocols, a JSON API, web pages, grades."""
