"""Detectors: COCO's format, their training and their average precision."""
