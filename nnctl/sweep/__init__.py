"""Many runs: the points of a sweep, trials, the processes that run them, the results."""
