"""Record the activations of vision transformers, and read the recorded tokens."""
