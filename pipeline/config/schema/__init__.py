"""The schema of the configuration, a module per section. It checks every value before any work is done."""
