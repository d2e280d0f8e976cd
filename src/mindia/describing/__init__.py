"""Describers: the port and what implements it."""
