"""Attacks in training: the four methods, their loop and its files."""
