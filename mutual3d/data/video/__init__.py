"""Readers of videos: frames by index, on the container's clock, upright."""
