"""What is remembered: rows, files and wire formats. SQL lives only here."""
