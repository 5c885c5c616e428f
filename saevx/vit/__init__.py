"""Vision transformers: their weights, the input that they expect, and their residual stream."""
