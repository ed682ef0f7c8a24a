"""What people look at: plots, the page, comparisons of tables."""
