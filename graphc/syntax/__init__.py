"""Text to syntax tree: grammar, parser with friendly errors, formatter."""
