"""How often Python's collector looks for garbage in a long run of many episodes.

Nearly all that a run lets go is freed at once, by its count of references; the collector finds next to nothing. But whatever is
alive it visits again and again: the 85,000 objects of 512 running episodes cost it a tenth of the loop's processor time,
most of it in pauses of 5 ms (docs/log.md, "Agent loop").
"""

import gc

_YOUNG_PER_OLDER = 500
"""Collections of what is new, behind which one looks at what outlived them; Python's own is 10."""


def collect_rarely() -> None:
    """Leave out what has been imported, which stays, and look seldom at what has lived for some time."""
    gc.freeze()
    gc.set_threshold(gc.get_threshold()[0], _YOUNG_PER_OLDER)
