"""Object stores: the port and what implements it."""
