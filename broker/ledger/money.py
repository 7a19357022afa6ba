"""Money as whole pico-dollars and as text or `Decimal` at the edges. Never a float. Imports the standard library."""

from decimal import ROUND_HALF_EVEN, Context, Decimal
from typing import Final

PICO: Final = 10**12
"""Pico-dollars in a dollar: the smallest unit of the ledger's Decimal(18,12)."""

_WIDE: Final = Context(prec=60, rounding=ROUND_HALF_EVEN)


def to_decimal(pico: int) -> Decimal:
    """USD with exactly 12 places; exact for any whole number of pico-dollars."""
    return Decimal((pico < 0, tuple(map(int, str(abs(pico)))), -12))


def to_text(pico: int) -> str:
    """USD as a decimal text with 12 places; the form in which events and reply headers carry it."""
    if pico < 0:
        return f"-{to_text(-pico)}"
    return f"{pico // PICO}.{pico % PICO:012d}"


def to_pico(usd: Decimal) -> int:
    """Whole pico-dollars of an amount in USD, the nearest one where it is finer than that (half to even)."""
    return int(_WIDE.quantize(_WIDE.multiply(usd, Decimal(PICO)), Decimal(1)))
