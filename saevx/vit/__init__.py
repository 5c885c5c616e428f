"""Vision transformers: load their weights, and record and read their activations."""
