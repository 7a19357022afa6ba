"""Apache Kafka's own jars, fetched from Maven Central by Maven itself. Nothing here knows an address."""

import asyncio
import re
import shutil
import signal
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final, TypeVar

T = TypeVar("T")

KAFKA_VERSION: Final = "4.1.1"
LEAST_JAVA: Final = 17
"""What Kafka 4's broker needs."""

POM: Final = """<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>local</groupId>
  <artifactId>chaos</artifactId>
  <version>1</version>
  <dependencies>
    <dependency><groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{kafka}</version></dependency>
    <dependency><groupId>org.slf4j</groupId><artifactId>slf4j-simple</artifactId><version>1.7.36</version></dependency>
  </dependencies>
</project>
"""


def run_to_end(work: Coroutine[Any, Any, T]) -> T:
    """Run `work`, which SIGTERM and Ctrl-C cancel, so that it stops the processes it started. Raises `Interrupted`."""

    async def main() -> T:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        return await task

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        raise Interrupted from None


class Interrupted(Exception):
    """A run was told to stop."""


class MavenMissing(Exception):
    """Kafka cannot be had on this machine; the message says what is missing."""


async def _output(*command: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out, _ = await process.communicate()
    return process.returncode or 0, out.decode(errors="replace")


async def check_java() -> None:
    """Raise `MavenMissing` where there is no Java that runs Kafka 4."""
    if shutil.which("java") is None:
        raise MavenMissing(f"java is not installed; chaos runs on Apache Kafka, which needs Java {LEAST_JAVA} or newer")
    _, said = await _output("java", "-version")
    found = re.search(r'version "(\d+)', said)
    if found is None or int(found[1]) < LEAST_JAVA:
        version = found[1] if found else said.strip()[:80]
        raise MavenMissing(
            f"Java {LEAST_JAVA} or newer is needed by Apache Kafka {KAFKA_VERSION}; this one is {version}"
        )


async def fetch_jars(folder: Path) -> Path:
    """Return the folder of Kafka's jars below `folder`, fetching them the first time. Raises `MavenMissing`."""
    await check_java()
    jars = folder / f"kafka-{KAFKA_VERSION}"
    done = folder / f"kafka-{KAFKA_VERSION}.complete"
    pom = folder / "pom.xml"
    if await asyncio.to_thread(_prepared, pom, done):
        return jars
    goal = ("dependency:copy-dependencies", f"-DoutputDirectory={jars}", "-DincludeScope=runtime")
    code, said = await _output("mvn", "-q", "-B", "-f", str(pom), *goal)
    if code != 0:
        lines = [line for line in said.splitlines() if line.strip()]
        raise MavenMissing(f"Maven could not fetch Apache Kafka {KAFKA_VERSION}: {lines[0] if lines else code}")
    await asyncio.to_thread(done.touch)
    return jars


def _prepared(pom: Path, done: Path) -> bool:
    """Whether the jars are there; else write what Maven is to fetch."""
    if done.exists():
        return True
    if shutil.which("mvn") is None:
        raise MavenMissing("mvn is not installed; Apache Kafka's jars come from Maven Central")
    pom.parent.mkdir(parents=True, exist_ok=True)
    pom.write_text(POM.format(kafka=KAFKA_VERSION))
    return False
