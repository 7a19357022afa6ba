"""Dead letters: writing them. Imports the envelope."""

from broker.envelope.dead import DeadLetter, dead_letter, read_dead

__all__ = ["DeadLetter", "dead_letter", "read_dead"]
