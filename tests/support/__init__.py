"""What tests of several floors share: tiny models, tiny federations, and ways to compare."""
