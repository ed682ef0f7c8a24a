"""Data sets: lists and annotations, and the samples made of them."""
