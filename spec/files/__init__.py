"""Files on disk: fingerprints of their content, and what a machine knows about datasets."""
