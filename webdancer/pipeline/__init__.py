"""Runs the stages one after the other in a run folder; the only room besides the command line that knows all others."""
