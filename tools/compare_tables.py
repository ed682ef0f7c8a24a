"""The command `mutual3d compare` under the name that PySlowFast's users expect; --help tells all of it."""

from mutual3d.cli.compare import main
from mutual3d.utils.command_line import run_command

if __name__ == "__main__":
    run_command(main)
