"""The commands as functions that return what they print."""
