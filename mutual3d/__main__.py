"""`python -m mutual3d`: the command without its script."""

from mutual3d.cli import entry_point

if __name__ == "__main__":
    entry_point()
