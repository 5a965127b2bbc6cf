"""Floor 0: the nouns, wiring by name, pytree helpers."""
