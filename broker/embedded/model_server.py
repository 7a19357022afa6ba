"""`python -m broker.embedded.model_server`: llama.cpp's HTTP server until SIGTERM."""

import argparse
import importlib
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Final

SLOTS: Final = 8
"""Answers written at once; together they are quicker than one after another."""

SLOT_TOKENS: Final = 1024
"""Prompt and answer of one slot."""


def serve(model: Path, name: str, port: int, *, embeddings: bool = False) -> None:
    """Serve `model`, called `name` in its answers, on 127.0.0.1 until SIGTERM or SIGINT.

    With `embeddings` it embeds, by the mean over its tokens, and answers nothing else: llama.cpp's server does one of
    the two.

    It takes half the cores and never spins for them: its threads wait for each other at every layer, so on cores that
    it shares with the rest of the stack more threads are slower (measured on 2 busy cores: one thread 42 tokens/s, two
    that spin 4, two that do not 11).
    """
    # A compiled module without types, an optional package, and slow to import.
    xllamacpp = importlib.import_module("xllamacpp")
    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.n_ctx = SLOTS * SLOT_TOKENS
    params.n_parallel = SLOTS
    params.hostnames = ["127.0.0.1"]
    params.port = port
    params.model_alias = {name}
    if embeddings:
        params.embedding = True
        params.pooling_type = xllamacpp.llama_pooling_type.LLAMA_POOLING_TYPE_MEAN
    for threads in (params.cpuparams, params.cpuparams_batch):
        threads.n_threads = max(1, (os.cpu_count() or 2) // 2)
        threads.poll = 0
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    server = xllamacpp.Server(params)
    stop.wait()
    del server
    sys.stdout.flush()
    os._exit(0)  # joining the server's threads can hang on an open connection, and there is nothing to save


def main() -> None:
    """Read the arguments and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--name", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--embeddings", action="store_true", help="embed, and do not answer")
    arguments = parser.parse_args()
    serve(arguments.model, arguments.name, arguments.port, embeddings=arguments.embeddings)


if __name__ == "__main__":
    main()
