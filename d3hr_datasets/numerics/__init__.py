"""Numbers that are the same everywhere: under any settings of the caller, threads, order of sums, seeds."""
