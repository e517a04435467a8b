"""What makes the weights: data sets, losses, loops and seeds."""
