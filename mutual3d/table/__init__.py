"""The query table: measured rows, selection, files."""
