"""`make kafka`: real Apache Kafka on this machine until Ctrl-C, for `KAFKA_BOOTSTRAP=… make test` or a try by hand."""

import asyncio
import sys
from pathlib import Path

import click

from tests.chaos.__main__ import CANNOT_RUN, JARS
from tests.chaos.brokers import KafkaCluster
from tests.chaos.maven import Interrupted, MavenMissing, fetch_jars, run_to_end
from tests.chaos.run import folder_of


async def serve(folder: Path, brokers: int) -> None:
    """Start the brokers, print where they are, and wait to be told to stop."""
    cluster = KafkaCluster(folder, await fetch_jars(JARS), brokers=brokers)
    try:
        await cluster.start()
        click.echo(cluster.bootstrap)
        await asyncio.Event().wait()
    finally:
        await cluster.stop()


@click.command()
@click.option("--brokers", type=click.Choice(["1", "3"]), default="1", show_default=True)
def main(brokers: str) -> None:
    """Run brokers; prints their addresses once they serve."""
    try:
        run_to_end(serve(folder_of(None), int(brokers)))
    except MavenMissing as error:
        click.echo(f"error: {error}", err=True)
        sys.exit(CANNOT_RUN)
    except Interrupted:
        return


if __name__ == "__main__":
    main()
