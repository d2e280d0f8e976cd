"""PostgreSQL: connections and units of work, migrations, the embedded server."""
