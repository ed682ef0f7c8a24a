"""What is done once before training: extracting frames, writing lists, making demo sets. Training never imports it."""
