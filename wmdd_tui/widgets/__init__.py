"""Widgets and the pure functions that feed them."""
