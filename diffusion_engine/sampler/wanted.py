"""What is wanted of a request's values, as errors say it."""

SEED = "a seed lies in 0 ... 2^64 - 1 and is a whole number"
REFINE = "a whole number of iterations a step, 0 for none"
START = "give a time t"
