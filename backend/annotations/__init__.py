"""What annotations say: regions with labels, the label of each pixel, and which of them count."""
