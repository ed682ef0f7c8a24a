"""What the command lines share: mistakes of the user end in one clear line instead of a traceback."""

import sys


def run_command(main):
    """Exit with what `main()` returns; errors that explain themselves are printed without a traceback, status 1."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("stopped; the same command goes on from what is saved", file=sys.stderr)
        sys.exit(130)
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        # A bare RuntimeError comes from inside torch and needs its traceback; the others were written for the user.
        if type(error) is RuntimeError:
            raise
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
