"""Seeds derived from names: the same parts give the same seed on every machine, in whatever order work is done."""

import hashlib
import random


def derive_seed(*parts: str | int) -> int:
    """A seed of 31 bits (what chat endpoints accept) from the parts, which may not contain a newline."""
    digest = hashlib.sha256("\n".join(str(part) for part in parts).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def derive_rng(*parts: str | int) -> random.Random:
    """A random generator seeded with the parts."""
    return random.Random(derive_seed(*parts))
