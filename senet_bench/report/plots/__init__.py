"""Plots of stored facts, drawn by matplotlib without a display; the same facts give the same bytes."""
