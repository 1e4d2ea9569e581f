"""The paper's benchmarks: data sets, their metric, its tables and figures."""
