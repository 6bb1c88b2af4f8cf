"""What runs around a training job, whichever framework trains: no framework is imported here."""
