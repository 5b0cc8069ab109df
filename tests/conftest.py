"""Shared settings of the tests."""
