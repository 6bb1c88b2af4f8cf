"""Files, standard streams and what the operating system says."""
