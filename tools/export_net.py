"""The command `mutual3d export` under the name that PySlowFast's users expect; --help tells all of it."""
from mutual3d.cli import entry_point

if __name__ == "__main__":
    entry_point("export")
