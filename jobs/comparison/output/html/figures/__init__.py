"""One module a figure; each takes parts of the comparison and returns a :class:`.plate.Plate`."""
