"""`python -m broker` and the `broker` command: turns our own errors into one clear line and an exit code."""

import errno
import logging
import os
import sys
from typing import Final

import click

from broker.cli.root import main as root
from broker.errors import BrokerError, ConfigError

INTERRUPTED: Final = 130
"""What a shell returns for a command that Ctrl-C ended."""

OUTPUT_LOST: Final = frozenset({errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EFBIG})
"""A full disk, and what else becomes of a file that output goes to; a closed pipe is click's."""


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 130 interrupted."""
    # What a client library would log about a part that is away is what the one line of the error tells. Commands that
    # keep running set up logging of their own.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        code = root(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.Abort:
        click.echo("interrupted", err=True)
        sys.exit(INTERRUPTED)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)
    except OSError as error:
        if error.errno not in OUTPUT_LOST:
            raise
        # What Python still holds for stdout cannot be written either, and would be a traceback at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        click.echo(f"error: the output cannot be written: {error.strerror}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
