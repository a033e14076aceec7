"""Screens: each serves one journey."""
