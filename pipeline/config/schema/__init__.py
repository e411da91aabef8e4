"""What a configuration may say: a module per section. Every value is checked here, before any work is done."""
