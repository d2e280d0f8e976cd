"""Embedders: the port and what implements it."""
