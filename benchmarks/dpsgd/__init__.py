"""What hiding single rows costs, beside the same training without, and beside opacus."""
