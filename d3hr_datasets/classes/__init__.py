"""Classes: their names and WordNet IDs, as folders, and as the labels of a model."""
