"""Files: their types, facts and texts. Knows nothing of the database."""
