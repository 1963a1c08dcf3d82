"""Helpers that know nothing about images or networks."""
