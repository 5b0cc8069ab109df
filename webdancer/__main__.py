"""`python -m webdancer`."""

from webdancer.cli import main

main()
