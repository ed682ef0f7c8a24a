"""The command `mutual3d run` under the name that PySlowFast's users expect; --help tells all of it."""

from mutual3d.cli.run import main
from mutual3d.utils.command_line import run_command

if __name__ == "__main__":
    run_command(main)
