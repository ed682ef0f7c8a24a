"""What a configuration costs: multiply-adds by counting, latency by measuring."""
