"""What the method gives, as runs of plans, a database of their results, and pages made of it, which `report` writes into docs/results/."""
