"""The command `mutual3d predict` under the name that PySlowFast's users expect; --help tells all of it."""

from mutual3d.cli.predict import main
from mutual3d.utils.command_line import run_command

if __name__ == "__main__":
    run_command(main)
