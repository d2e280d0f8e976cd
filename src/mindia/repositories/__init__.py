"""SQL, and the mapping of its rows to values. One module for each aggregate."""
