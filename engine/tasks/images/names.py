"""Names of the nets that need no extra; torch-free, so that a quick verb may ask."""

OWN = ("litecnn", "litecnn_pro")
