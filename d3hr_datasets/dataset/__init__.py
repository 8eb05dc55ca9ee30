"""The data sets: an artifact -> images and labels, and what can be made of them."""
