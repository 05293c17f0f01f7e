"""Stored runs as tables, plots and the page."""
