"""Tables of students, and every figure of README, cards and docs."""
