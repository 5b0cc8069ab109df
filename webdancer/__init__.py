"""webdancer turns websites into a trained search agent (an implementation of WebDancer, arXiv 2505.22648)."""

__version__ = "0.1.0"
