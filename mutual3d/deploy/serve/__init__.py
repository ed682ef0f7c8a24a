"""A trained network behind HTTP: predictions at a budget, streams within a deadline, and a page to look at both."""
