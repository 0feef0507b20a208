"""Measuring how well the store finds what people judged to be relevant."""
