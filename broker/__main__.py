"""`python -m broker` and the `broker` command: turns our own errors into one clear line and an exit code."""

import logging
import sys

import click

from broker.cli.root import main as root
from broker.errors import BrokerError, ConfigError


def main() -> None:
    """Run the command line. Exit codes: 0 done, 1 failed, 2 wrong use or configuration, 130 interrupted."""
    # What a client library would log about a part that is away is what the one line of the error tells. Commands that
    # keep running set up logging of their own.
    logging.getLogger().addHandler(logging.NullHandler())
    try:
        root(standalone_mode=True)
    except ConfigError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(2)
    except BrokerError as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(1)


if __name__ == "__main__":
    main()
