"""The invariants, a module per family. Each is a function of a picture or of the whole, and of the findings."""
