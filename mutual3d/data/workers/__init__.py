"""Processes that read samples for others and may die of one."""
