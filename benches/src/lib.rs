//! Side-by-side benchmarks: each prints ratios with their spread.
