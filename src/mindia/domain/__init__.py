"""What Mindia speaks about: frozen values and enums, without any input or output."""
