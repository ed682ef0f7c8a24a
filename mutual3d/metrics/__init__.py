"""How good scores are: top-k accuracy, average precision, boxes. One interface: update, merge, values, state."""
