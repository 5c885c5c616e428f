"""Traits: score images, and compute the average precision of each trait."""
