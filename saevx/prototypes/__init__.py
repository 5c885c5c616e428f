"""Prototypes: scorers that need no training."""
