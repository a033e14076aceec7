"""Widgets: each draws one thing, none knows the store."""
