"""How things are shown in notebooks. Knows HTML, and nothing of what it shows."""
