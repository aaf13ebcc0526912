"""Which images to label next: what a trained network makes of each of them, and their order."""
