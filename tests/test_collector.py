"""A collector that looks seldom still frees all garbage, new and old."""

import subprocess
import sys

# A ring of objects that nothing else holds; some live long enough to be taken for old before they are let go.
RUN = """
import gc, weakref
from webdancer.collector import collect_rarely

class Node:
    def __init__(self):
        self.itself = self

collect_rarely()
old, new = Node(), Node()
freed = {}
for name, node in (("old", old), ("new", new)):
    weakref.finalize(node, lambda name=name: freed.setdefault(name, len(kept)))
kept = []
del new, node
while gc.get_count()[1] < 3:  # `old` has outlived three collections
    kept.append([])
del old
while "old" not in freed and len(kept) < 1_000_000:
    kept.append([])
print(freed["new"], freed["old"])
"""


def test_garbage_is_freed_whether_new_or_old() -> None:
    done = subprocess.run([sys.executable, "-c", RUN], capture_output=True, text=True, check=True)
    new, old = map(int, done.stdout.split())
    assert new <= 2_000  # objects made until then
    assert 10_000 < old < 500_000  # Python's own setting: within 8,000
