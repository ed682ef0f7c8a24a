"""Boxes around keyframes, as AVA has them."""
