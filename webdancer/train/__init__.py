"""Training on the trajectories and questions of a run (paper, sections 3.3 and 4). The only room that may load torch."""
