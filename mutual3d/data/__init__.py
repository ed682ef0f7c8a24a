"""From video files to batches of uint8 clips. Knows no network and no sampling of sub-networks."""
