"""Text to vectors and lexical terms."""
