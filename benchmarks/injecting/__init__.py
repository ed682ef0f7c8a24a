"""Parts of faults.py: tiny real runs in forked processes, and the faults that are injected into them."""
