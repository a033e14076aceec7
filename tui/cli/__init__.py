"""The `mltrack` command: every action of the screen has its twin here."""
