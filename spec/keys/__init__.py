"""Keys: canonical JSON of specs, and the markers of fields that count differently."""
