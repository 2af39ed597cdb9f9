"""Work on the nodes of a Ray cluster. Ray is imported in `joining` and `train` alone, once `[cluster] address` is set."""
