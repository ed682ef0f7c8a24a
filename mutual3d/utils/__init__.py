"""What every folder may use: files, logging, distributed runs. Knows nothing else of mutual3d."""
