"""Training on the trajectories and questions of a run (paper, sections 3.3 and 4). The only room that may load torch."""

import os

# torch's matrix library on CPUs keeps the programs that it makes for shapes of operands, 1,024 by itself. Generation and training
# meet several thousand shapes (up to half a gigabyte of programs). It reads this once, at its first product.
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "8192")
