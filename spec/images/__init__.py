"""Image sets and trait sets: which images they list, and which files hold their labels."""
