"""What exact sums count: the units of a latent and of its square, powers of two."""

UNIT, SQUARE_UNIT = 2.0**-32, 2.0**-36
