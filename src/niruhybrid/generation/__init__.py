"""Answers from hits."""
