"""What is seen. Textual and plotext live only here."""
